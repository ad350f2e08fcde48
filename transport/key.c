/* See key.h.  A key comes into being whole: it is written beside its place and linked there, which
 * one of several that try at once, on one machine or over NFS, can do. */
#define TFR_LOG_PART "transport"
#include "transport/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { TEXT_LEN = 2 * TFR_KEY_LEN };

tfr_status tfr_key_path(const char *given, char *path_out, size_t room)
{
    const char *home = getenv("HOME");
    int len;

    if (given && *given)
        len = snprintf(path_out, room, "%s", given);
    else if (home && *home == '/')
        len = snprintf(path_out, room, "%s/.config/tfr/key", home);
    else
        return tfr_fail(TFR_E_ACCESS, "HOME is not set: name the key file with TFR_KEY_FILE");
    return len > 0 && (size_t)len < room
               ? TFR_OK
               : tfr_fail(TFR_E_INVAL, "the name of the key file is too long");
}

/* What is wrong becomes known when the key itself is made. */
static void folders_make(const char *path)
{
    char folder[TFR_KEY_PATH_MAX];

    snprintf(folder, sizeof(folder), "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(folder, 0700);
        *slash = '/';
    }
}

static tfr_status text_write(int fd)
{
    uint8_t key[TFR_KEY_LEN];
    char text[TEXT_LEN + 2];
    tfr_status status = TFR_OK;

    if (getrandom(key, sizeof(key), 0) != sizeof(key))
        return TFR_E_SYS;
    for (int i = 0; i < TFR_KEY_LEN; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
    text[TEXT_LEN] = '\n';
    if (write(fd, text, TEXT_LEN + 1) != TEXT_LEN + 1 || fsync(fd) < 0)
        status = TFR_E_SYS;
    explicit_bzero(key, sizeof(key));
    explicit_bzero(text, sizeof(text));
    return status;
}

tfr_status tfr_key_make(const char *path)
{
    char temp[TFR_KEY_PATH_MAX + 32];
    uint64_t salt = 0;
    tfr_status status;
    int fd;

    if (access(path, F_OK) == 0)
        return TFR_OK;
    folders_make(path);
    if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
        return tfr_fail(TFR_E_SYS, "getrandom: %s", strerror(errno));
    snprintf(temp, sizeof(temp), "%s.%016llx", path, (unsigned long long)salt);
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return tfr_fail(TFR_E_ACCESS, "make the key file %s: %s: name another with --key-file",
                        path, strerror(errno));
    status = text_write(fd);
    if (status == TFR_OK && link(temp, path) < 0 && errno != EEXIST)
        status = TFR_E_SYS;
    if (status != TFR_OK)
        tfr_fail(status, "make the key file %s: %s: name another with --key-file", path,
                 strerror(errno));
    close(fd);
    unlink(temp);
    return status;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Blank space may follow. */
static int text_parse(const char *text, size_t len, uint8_t key_out[TFR_KEY_LEN])
{
    if (len < TEXT_LEN || strspn(text + TEXT_LEN, " \t\r\n") != len - TEXT_LEN)
        return 0;
    for (int i = 0; i < TFR_KEY_LEN; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        key_out[i] = (uint8_t)(high << 4 | low);
    }
    return 1;
}

/* Root may use what belongs to others. */
static tfr_status file_check(const char *path, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return tfr_fail(TFR_E_ACCESS, "the key file %s is no file", path);
    if (st.st_mode & 077)
        return tfr_fail(TFR_E_ACCESS, "the key file %s is open to others (mode %04o): chmod 600 it",
                        path, (unsigned)st.st_mode & 07777);
    if (st.st_uid != geteuid() && geteuid() != 0)
        return tfr_fail(TFR_E_ACCESS, "the key file %s belongs to user %u: make a copy of your own",
                        path, (unsigned)st.st_uid);
    return TFR_OK;
}

tfr_status tfr_key_read(const char *path, uint8_t key_out[TFR_KEY_LEN])
{
    char text[TEXT_LEN + 16] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    tfr_status status;
    ssize_t len;

    if (fd < 0 && errno == ENOENT)
        return tfr_fail(TFR_E_ACCESS,
                        "there is no key file %s: copy the one of the executor's user there (mode "
                        "0600), or name it with TFR_KEY_FILE",
                        path);
    if (fd < 0)
        return tfr_fail(TFR_E_ACCESS,
                        "the key file %s: %s: it has to be yours (chmod 600), or TFR_KEY_FILE "
                        "names another",
                        path, strerror(errno));
    status = file_check(path, fd);
    len = status == TFR_OK ? read(fd, text, sizeof(text) - 1) : 0;
    close(fd);
    if (status == TFR_OK && (len < 0 || !text_parse(text, (size_t)len, key_out)))
        status = tfr_fail(TFR_E_ACCESS,
                          "the key file %s holds no key of 64 hexadecimal digits: remove it, and "
                          "tf-executor makes one",
                          path);
    explicit_bzero(text, sizeof(text));
    return status;
}
