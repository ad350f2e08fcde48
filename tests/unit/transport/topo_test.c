/* Placement on machines that XML files describe: real shapes, written down small. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "transport/topo.h"

static struct tfr_topo *topo;
static struct tfr_topo_place place;

/* false: built without hwloc, nothing to test here. */
static bool machine(const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.xml", TFR_TOPO_FOLDER, file);
    tfr_status status = tfr_topo_open(path, &topo);
    if (status == TFR_E_UNSUP)
        cr_skip_test("built without hwloc");
    cr_assert_eq(status, TFR_OK);
    return status == TFR_OK;
}

static void find(const char *pci)
{
    tfr_topo_find(topo, pci, NULL, &place);
}

static void near_is(const char *names)
{
    char text[256];
    tfr_topo_near(&place, text, sizeof text);
    cr_assert_str_eq(text, names);
}

static void cpus_are(const char *list)
{
    char text[256];
    tfr_topo_list_text(&place.cpus, text, sizeof text);
    cr_assert_str_eq(text, list);
}

static void done(void)
{
    tfr_topo_close(topo);
}

Test(topo, gives_a_gpu_the_cores_and_the_nic_of_its_own_socket)
{
    machine("two_sockets");
    find("0000:17:00.0");
    cr_assert_eq(place.node, 0);
    cr_assert_eq(place.package, 0);
    cr_assert(!place.far);
    cr_assert_eq(place.nic[0].span, TFR_SPAN_SWITCH);
    cr_assert_str_eq(place.nic[0].pci, "0000:18:00.0");
    near_is("mlx5_0");
    cpus_are("0-3");
    done();
}

Test(topo, calls_a_nic_of_the_other_socket_far_and_counts_more_hops)
{
    machine("two_sockets");
    find("0000:17:00.0");
    int close_by = place.nic[0].hops;
    find("0000:97:00.0");
    cr_assert_eq(place.node, 1);
    cr_assert(place.far);
    cr_assert_eq(place.nic[0].span, TFR_SPAN_FAR);
    cr_assert_gt(place.nic[0].hops, close_by);
    cr_assert(strstr(place.why, "far"));
    cpus_are("4-7");
    done();
}

Test(topo, gives_each_of_two_gpus_behind_a_switch_a_nic_of_its_own_first)
{
    machine("eight_gpus");
    find("0000:12:00.0");
    near_is("mlx5_0,mlx5_1");
    find("0000:13:00.0");
    near_is("mlx5_1,mlx5_0");
    find("0000:73:00.0");
    near_is("mlx5_7,mlx5_6");
    cr_assert_eq(place.nic_n, 8);
    cr_assert_eq(place.node, 1);
    cr_assert(!place.far);
    done();
}

Test(topo, orders_other_nics_by_how_far_they_are)
{
    machine("eight_gpus");
    find("0000:12:00.0");
    for (uint32_t i = 1; i < place.nic_n; i++)
        cr_assert_leq(place.nic[i - 1].span, place.nic[i].span);
    cr_assert_eq(place.nic[2].span, TFR_SPAN_NODE);
    cr_assert_eq(place.nic[4].span, TFR_SPAN_FAR);
    done();
}

Test(topo, lists_one_cpu_of_each_core_and_the_first_core_last)
{
    machine("eight_gpus");
    find("0000:12:00.0");
    cpus_are("0-3,8-11");
    cr_assert_eq(place.core_n, 4);
    cr_assert_eq(place.core[0], 1);
    cr_assert_eq(place.core[3], 0);
    done();
}

Test(topo, lists_all_nics_that_are_equally_near)
{
    machine("equal_nics");
    find("0000:17:00.0");
    near_is("mlx5_0,mlx5_1");
    cr_assert_eq(place.nic[0].span, TFR_SPAN_NODE);
    cr_assert_str_eq(place.nic[2].name, "mlx5_2");
    cr_assert_eq(place.nic[2].span, TFR_SPAN_FAR);
    done();
}

Test(topo, leaves_everything_open_without_pci_information)
{
    machine("no_pci");
    find("0000:17:00.0");
    cr_assert_str_empty(place.gpu);
    cr_assert_eq(place.node, -1);
    cr_assert_eq(place.nic_n, 0);
    cr_assert(!place.far);
    cpus_are("0-7");
    done();
}

Test(topo, keeps_to_the_cores_that_a_container_allows)
{
    machine("restricted");
    find("0000:17:00.0");
    cpus_are("2-3");
    cr_assert_eq(place.core_n, 2);
    find("0000:97:00.0");
    cpus_are("2-3");
    cr_assert(strstr(place.why, "no core of the GPU's node"));
    cr_assert_eq(place.node, 1);
    done();
}

Test(topo, places_nothing_apart_on_one_socket)
{
    machine("one_socket");
    find("0000:01:00.0");
    cr_assert_eq(place.node, -1);
    cr_assert(!place.far);
    cr_assert_eq(place.nic[0].span, TFR_SPAN_ROOT);
    near_is("mlx4_0");
    cpus_are("0-3");
    done();
}

Test(topo, takes_no_other_device_for_a_gpu)
{
    machine("two_sockets");
    find("0000:18:00.0");
    cr_assert_str_empty(place.gpu);
    find("no address");
    cr_assert_str_empty(place.gpu);
    find(NULL);
    cr_assert_str_empty(place.gpu);
    near_is("mlx5_0");
    done();
}

Test(topo, obeys_a_list_of_cores)
{
    cpu_set_t cpus;
    machine("two_sockets");
    cr_assert(tfr_topo_list_parse("2,5-6", &cpus));
    tfr_topo_find(topo, "0000:17:00.0", &cpus, &place);
    cpus_are("2,5-6");
    cr_assert(place.listed);
    cr_assert_eq(place.core[0], 2);
    cr_assert(tfr_topo_list_parse("64", &cpus));
    tfr_topo_find(topo, "0000:17:00.0", &cpus, &place);
    cpus_are("0-3");
    cr_assert(!place.listed);
    done();
}

Test(topo, binds_nothing_by_the_description_of_another_machine)
{
    machine("two_sockets");
    cr_assert(!tfr_topo_is_here(topo));
    cr_assert(!tfr_topo_memory(topo, 0));
    done();
}

Test(topo, draws_the_choice_and_its_reason)
{
    char text[TFR_TOPO_TEXT];
    machine("two_sockets");
    find("0000:97:00.0");
    size_t len = tfr_topo_draw(&place, text, sizeof text);
    cr_assert_eq(len, strlen(text));
    cr_assert(strstr(text, "package 1, node 1: cores 4-7\n"));
    cr_assert(strstr(text, "GPU 0000:97:00.0\n"));
    cr_assert(strstr(text, "* NIC mlx5_0 0000:18:00.0 far: in another package, hops: "));
    for (size_t room = 1; room < len; room++)
        cr_assert_eq(tfr_topo_draw(&place, text, room), room - 1);
    done();
}

Test(topo, knows_this_machine_or_says_that_it_was_built_without_hwloc)
{
    tfr_status status = tfr_topo_open(NULL, &topo);
    cr_assert(status == TFR_OK || status == TFR_E_UNSUP);
    tfr_topo_find(topo, "0000:ff:1f.0", NULL, &place);
    cr_assert_gt(CPU_COUNT(&place.cpus), 0);
    cr_assert_gt(place.core_n, 0);
    cr_assert(place.why);
    done();
}

Test(topo, refuses_a_file_that_describes_no_machine)
{
    cr_assert_neq(tfr_topo_open("/dev/null", &topo), TFR_OK);
}

Test(topo, reads_and_writes_lists_of_cores)
{
    static const char *const bad[] = {"", ",", "1,", "a", "3-1", "1-", "-1", "1 2", "99999"};
    char text[64];
    cpu_set_t cpus;
    cr_assert(tfr_topo_list_parse("0-3,8", &cpus));
    tfr_topo_list_text(&cpus, text, sizeof text);
    cr_assert_str_eq(text, "0-3,8");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(!tfr_topo_list_parse(bad[i], &cpus), "%s", bad[i]);
}
