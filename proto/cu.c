/* Fills struct tfr_cu.  Called by the executor and by tools, once per process. */
#include "proto/cu.h"

#include <dlfcn.h>
#include <string.h>

static void look_up(struct tfr_cu *cu)
{
    for (const struct tfr_cu_row *row = tfr_cu_rows; row->name; row++) {
        void *at = dlsym(cu->lib, row->name);
        memcpy((char *)cu + row->at, &at, sizeof at);
    }
}

tfr_status tfr_cu_load(const char *path, struct tfr_cu *cu_out)
{
    struct tfr_cu cu = {.lib = dlopen(path, RTLD_NOW | RTLD_LOCAL)};

    if (!cu.lib)
        return tfr_fail(TFR_E_UNSUP, "%s", dlerror());
    if (dlsym(cu.lib, "tfr_stub_marker"))
        return tfr_fail(TFR_E_INVAL, "%s is the client library of TFR, not a driver", path);
    look_up(&cu);
    if (!cu.cuInit)
        return tfr_fail(TFR_E_UNSUP, "%s has no cuInit: not a driver", path);
    *cu_out = cu;
    return TFR_OK;
}
