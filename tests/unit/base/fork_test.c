/* Which kernels leave a device's pages with the parent. */
#include <criterion/criterion.h>

#include "base/fork.h"

Test(fork, copies_pages_of_devices_since_linux_5_13)
{
    cr_assert(tfr_fork_copies_of("6.1.0-13-amd64"));
    cr_assert(tfr_fork_copies_of("5.13.0"));
    cr_assert(tfr_fork_copies_of("5.15.0-91-generic"));
    cr_assert_not(tfr_fork_copies_of("5.4.0-150-generic"));
    cr_assert_not(tfr_fork_copies_of("4.18.0-372.el8.x86_64"));
    cr_assert_not(tfr_fork_copies_of("unknown"));
}
