/* intercept/image.c: how long an image is when all that is known is where it starts. */
#include "kit.h"

#include <elf.h>
#include <string.h>

#include "intercept/module.h"

struct fatbin {
    uint32_t magic;
    uint16_t version, header_len;
    uint64_t body_len;
    char body[24];
};

Test(image, length_of_a_fatbin_is_in_its_header_bare_or_wrapped)
{
    const struct fatbin f = {.magic = 0xba55ed50u, .version = 1, .header_len = 16, .body_len = 24};
    struct {
        uint32_t magic, version;
        const void *data, *extra;
    } wrapper = {0x466243b1u, 1, &f, NULL};
    const void *start;
    uint64_t len;
    cr_assert(tfr_image_bytes(&f, &start, &len));
    cr_assert_eq(len, 40);
    cr_assert(tfr_image_bytes(&wrapper, &start, &len));
    cr_assert_eq(start, &f);
    cr_assert_eq(len, 40);
}

Test(image, ptx_text_ends_with_its_nul)
{
    const void *start;
    uint64_t len;
    cr_assert(tfr_image_bytes("//\n.version 9.0\n", &start, &len));
    cr_assert_eq(len, 17);
}

Test(image, a_cubin_ends_with_its_last_section)
{
    struct {
        Elf64_Ehdr head;
        Elf64_Shdr section[2];
    } elf = {0};
    const void *start;
    uint64_t len;
    memcpy(elf.head.e_ident, ELFMAG, SELFMAG);
    elf.head.e_shoff = sizeof elf.head;
    elf.head.e_shentsize = sizeof(Elf64_Shdr);
    elf.head.e_shnum = 2;
    elf.section[0] = (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_offset = 500, .sh_size = 33};
    elf.section[1] = (Elf64_Shdr){.sh_type = SHT_NOBITS, .sh_offset = 600, .sh_size = 4096};
    cr_assert(tfr_image_bytes(&elf, &start, &len));
    cr_assert_eq(len, 533);
}

Test(image, anything_else_is_refused)
{
    const unsigned char junk[16] = {1, 2, 3, 4};
    const void *start;
    uint64_t len;
    cr_assert_not(tfr_image_bytes(junk, &start, &len));
}
