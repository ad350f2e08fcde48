/* Where a worker's numbers lie.  Written by the roles of the session, read by the parent. */
#define TFR_LOG_PART "executor"
#include "executor/stat.h"

#include <unistd.h>

#include "transport/transport.h"

static struct tfr_stat_page unread;
struct tfr_stat_page *tfr_stat = &unread;

void tfr_stat_open(int fd)
{
    void *page;
    if (fd < 0)
        return;
    if (tfr_memfd_map(fd, 0, sizeof *tfr_stat, NULL, &page) == TFR_OK)
        tfr_stat = page;
    close(fd);
}
