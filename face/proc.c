/* cuGetProcAddress: what cudart uses instead of dlsym, some 440 times per copy of itself.  Also the
 * answer of every symbol that the host does not implement.  Runs before cuInit: knows nothing of
 * the session. */
#define TFR_LOG_PART "face"
#include "face/face.h"

#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "face/map.h"

/* The first row of the name, or NULL. */
static const struct tfr_face_row *first_row(const char *name)
{
    size_t low = 0, high = tfr_face_row_n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(tfr_face_rows[mid].name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == tfr_face_row_n || strcmp(tfr_face_rows[low].name, name) != 0)
        return NULL;
    return &tfr_face_rows[low];
}

/* The newest row that the version knows; NULL: all are newer. */
static const struct tfr_face_row *newest_row(const struct tfr_face_row *row, int version)
{
    const struct tfr_face_row *end = tfr_face_rows + tfr_face_row_n;
    const struct tfr_face_row *found = NULL;

    for (const char *name = row->name; row < end && strcmp(row->name, name) == 0; row++) {
        if (row->version <= version)
            found = row;
    }
    return found;
}

static void *address(const struct tfr_face_row *row, int version, cuuint64_t flags)
{
    bool own = flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;

    return (void *)(own && row->twin && row->twin_version <= version ? row->twin : row->symbol);
}

static CUdriverProcAddressQueryResult find(const char *name, int version, cuuint64_t flags,
                                           void **symbol_out)
{
    const struct tfr_face_row *row = first_row(name);

    if (!row)
        return CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    row = newest_row(row, version);
    if (!row)
        return CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    *symbol_out = address(row, version, flags);
    return CU_GET_PROC_ADDRESS_SUCCESS;
}

/* With a status pointer an unknown name is an answer, without one it is an error.  cudart asks for
 * the empty name without one, to see whether we are here at all. */
__attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(
    const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
    CUdriverProcAddressQueryResult *symbolStatus)
{
    CUdriverProcAddressQueryResult status;

    if (!symbol || !pfn || flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    *pfn = NULL;
    status = find(symbol, cudaVersion, flags, pfn);
    if (symbolStatus)
        *symbolStatus = status;
    else if (status != CU_GET_PROC_ADDRESS_SUCCESS)
        return CUDA_ERROR_NOT_FOUND;
    return CUDA_SUCCESS;
}

__attribute__((visibility("default"))) CUresult cuGetProcAddress(const char *symbol, void **pfn,
                                                                 int cudaVersion, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, pfn, cudaVersion, flags, NULL);
}

CUresult tfr_face_none(const char *name, _Atomic unsigned char *said)
{
    if (!atomic_exchange_explicit(said, 1, memory_order_relaxed))
        tfr_warn("%s is not supported: answered with error %d", name, CUDA_ERROR_NOT_SUPPORTED);
    return CUDA_ERROR_NOT_SUPPORTED;
}
