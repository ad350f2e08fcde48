/* Any bytes as a client's ways: whatever they claim, the worker either takes none of them or finds
 * names, offers and texts that end where they should. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/ways.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int sock = -1;
    static struct tfr_ways ways;
    char why[TFR_WAYS_TEXT] = "";
    uint32_t at = 0;
    if (sock < 0)
        sock = socket(AF_UNIX, SOCK_STREAM, 0);
    const struct tfr_boot boot = {.fd = sock};
    if (!tfr_ways_take(data, size, &ways))
        return 0;
    while (tfr_ways_next(&ways, "auto", &boot, &at, why))
        if (at > ways.n)
            abort();
    for (const char *c = why; *c; c++)
        if (*c < ' ' || *c > '~')
            abort();
    return 0;
}
