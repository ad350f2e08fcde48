/* Descriptors of the session.  None of them may be one of the first three: a program that runs
 * without stdin, stdout or stderr would write its own lines, and ours, into the session.  Called by
 * init.c while it opens descriptors. */
#define TFR_LOG_PART "intercept"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "intercept/client.h"

/* Fills the gaps below 3 with files of our own; the others stay as the program has them. */
void tfr_holes_fill(struct tfr_holes *holes)
{
    struct stat st;
    int fd;
    holes->n = 0;
    while ((fd = memfd_create("tfr-hole", MFD_CLOEXEC)) >= 0 && fd <= STDERR_FILENO &&
           fstat(fd, &st) == 0) {
        holes->fd[holes->n] = fd;
        holes->file[holes->n++] = (uint64_t)st.st_ino;
    }
    if (fd >= 0)
        close(fd);
}

/* The program may have opened files there meanwhile, with dup2. */
void tfr_holes_leave(const struct tfr_holes *holes)
{
    struct stat st;
    for (int i = 0; i < holes->n; i++)
        if (fstat(holes->fd[i], &st) == 0 && (uint64_t)st.st_ino == holes->file[i])
            close(holes->fd[i]);
}

void tfr_wakers_open(void)
{
    tfr_client.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    tfr_client.poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void tfr_wakers_close(void)
{
    if (tfr_client.wake >= 0)
        close(tfr_client.wake);
    if (tfr_client.poke >= 0)
        close(tfr_client.poke);
    tfr_client.wake = tfr_client.poke = -1;
}
