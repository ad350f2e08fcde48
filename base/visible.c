/* Entries are indices, or the beginnings of UUIDs: GPU-... and, where the driver shows a part of a
 * GPU as a device, MIG-... */
#include "base/visible.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { NONE = -1, UUID_TEXT = 36 };

static void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT + 1])
{
    int at = 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[at++] = '-';
        snprintf(text + at, 3, "%02x", uuid[i]);
        at += 2;
    }
}

/* The one device whose UUID begins like this. */
static int by_uuid(const char *begin, size_t len, const struct tfr_visible_device *device, int n)
{
    int found = NONE;
    for (int i = 0; i < n; i++) {
        char text[UUID_TEXT + 1];
        uuid_text(device[i].uuid, text);
        if (len > UUID_TEXT || strncasecmp(text, begin, len) != 0)
            continue;
        if (found != NONE)
            return NONE;
        found = i;
    }
    return found;
}

/* What follows the digits does not matter. */
static int by_index(const char *entry, size_t len, int n)
{
    int index = 0;
    size_t at = len > 0 && *entry == '+' ? 1 : 0;
    if (at == len || !isdigit((unsigned char)entry[at]))
        return NONE;
    for (; at < len && isdigit((unsigned char)entry[at]); at++) {
        index = 10 * index + (entry[at] - '0');
        if (index >= n)
            return NONE;
    }
    return index;
}

static int entry_find(const char *entry, size_t len, const struct tfr_visible_device *device, int n)
{
    while (len > 0 && isspace((unsigned char)*entry)) {
        entry++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)entry[len - 1]))
        len--;
    if (len >= 4 && (strncmp(entry, "GPU-", 4) == 0 || strncmp(entry, "MIG-", 4) == 0))
        return by_uuid(entry + 4, len - 4, device, n);
    return by_index(entry, len, n);
}

int tfr_visible_read(const char *list, const struct tfr_visible_device *device, int n, int *at_out)
{
    int seen = 0;
    for (int i = 0; !list && i < n; i++)
        at_out[seen++] = i;
    while (list) {
        size_t len = strcspn(list, ",");
        int at = entry_find(list, len, device, n);
        if (at == NONE)
            break;
        for (int i = 0; i < seen; i++)
            if (at_out[i] == at)
                return 0;
        at_out[seen++] = at;
        list = list[len] ? list + len + 1 : NULL;
    }
    return seen;
}
