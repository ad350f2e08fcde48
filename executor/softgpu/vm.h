/* Runs PTX on the CPU, 32 lanes per instruction.  Knows PTX and memory (devmem.h); knows nothing of
 * streams, contexts or handles, which are the driver API's (module.c, stream.c, api_*.c).
 *
 * Threads: a module is loaded and unloaded by one thread at a time; after load it is read-only but
 * for the lazy decode of kernels, which vm serialises itself.  vm_run may be called by several
 * threads at once. */
#ifndef TFR_SOFTGPU_VM_H
#define TFR_SOFTGPU_VM_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Why something was refused or failed, for the log and the JIT error buffer:
 * "kernel _Z3fooPf, ptx line 41: wgmma.mma_async is not supported". */
struct vm_text {
    char s[512];
};

/* ---- fatbin.c: from what cuModuleLoadData or cuLibraryLoadData is given to PTX text ---- */

/* Accepts a wrapper (__fatBinC_Wrapper_t, v1 and v2), a fatbin container, PTX text or a cubin, and
 * gives the newest PTX whose target is <= `arch` (e.g. 75, 90), NUL-terminated, malloc'ed.
 * `limit` is the number of readable bytes at image, or SIZE_MAX when only the headers tell.
 * CUDA_ERROR_NO_BINARY_FOR_GPU: only machine code in it, or only newer PTX;
 * CUDA_ERROR_INVALID_IMAGE: none of the formats.  Decoders: stored, LZ4 block, zstd by dlopen of
 * libzstd.so.1. */
CUresult vm_image_ptx(const void *image, size_t limit, int arch, char **ptx_out, size_t *len_out,
                      struct vm_text *why);

/* ---- module ---- */

struct vm_module;
struct vm_kernel;

struct vm_param {
    uint32_t at, size;
};

struct vm_kernel_info {
    const char *name;
    const struct vm_param *params;
    uint32_t param_n;
    uint32_t param_len;   /* bytes of the whole parameter block */
    uint32_t shared_len;  /* static shared memory */
    uint32_t local_len;   /* per thread */
    uint32_t const_len;   /* of the module */
    uint32_t max_threads; /* .maxntid product or 1024 */
    uint32_t regs;        /* an estimate in 32-bit registers, 8..255, never 0 */
    uint32_t bound;  /* most instructions one thread can retire: their number, if no branch goes
                      * backwards and nothing is called (after prepare); 0: not known.  The
                      * driver runs a small bounded grid on the submitting thread. */
    int ptx_version; /* 90 for 9.0 */
    int target;      /* 75 for sm_75 */
};

/* A module-scope variable (.global, .const, and .shared is not one). */
struct vm_global {
    const char *name;
    CUdeviceptr addr;
    size_t len;
};

/* Parses the text and places globals and constants in device memory with soft_mem_alloc,
 * initialisers written.  Kernels are decoded on demand, so that one unsupported kernel does not
 * cost the others.  A text of several modules (PTX_NEXT_MODULE in ptx.h) is linked.
 * CUDA_ERROR_INVALID_PTX, _UNSUPPORTED_PTX_VERSION, _NOT_FOUND (unresolved extern), _INVALID_IMAGE
 * (modules that contradict each other) with the reason in *why. */
CUresult vm_module_load(const char *ptx, size_t len, struct vm_module **module_out,
                        struct vm_text *why);
void vm_module_unload(struct vm_module *module);
/* What loading would answer, but nothing is placed.  whole: everything that is used has to be
 * defined, as after linking. */
CUresult vm_ptx_check(const char *ptx, size_t len, bool whole, int arch, struct vm_text *why);

/* CUDA_ERROR_INVALID_PTX, as drivers say, where the text is for another device than `arch`. */
CUresult vm_module_fits(const struct vm_module *module, int arch, struct vm_text *why);
size_t vm_module_kernel_n(const struct vm_module *module);
struct vm_kernel *vm_module_kernel(struct vm_module *module, size_t at); /* in source order */
struct vm_kernel *vm_module_find(struct vm_module *module, const char *name);
size_t vm_module_global_n(const struct vm_module *module);
const struct vm_global *vm_module_global(const struct vm_module *module, size_t at);
const struct vm_global *vm_module_find_global(const struct vm_module *module, const char *name);

/* Decodes if it was not yet; cheap afterwards.  CUDA_ERROR_NOT_SUPPORTED names kernel, line and
 * opcode. */
CUresult vm_kernel_prepare(struct vm_kernel *kernel, struct vm_text *why);
/* Valid before prepare too, but for regs and local_len. */
const struct vm_kernel_info *vm_kernel_info(const struct vm_kernel *kernel);

/* ---- running ---- */

/* Of a context. */
struct vm_heap {
    _Atomic uint64_t used, limit;
};

struct vm_fault {
    CUresult result; /* 700 address, 716 misaligned, 719 trap or deadlock, 710 assert, 702 budget */
    uint32_t block[3], thread[3];
    uint32_t line; /* of the PTX */
    uint64_t addr;
    struct vm_text text; /* the whole story in one line */
};

struct vm_launch {
    struct vm_kernel *kernel; /* prepared */
    uint32_t grid[3], block[3];
    uint32_t shared_len;  /* dynamic */
    const void *params;   /* param_len bytes, laid out as the kernel's parameter block */
    bool cooperative;     /* all blocks resident, round robin */
    uint32_t stack_len;   /* bytes per thread for calls beyond one of each function; 0: 16 KiB */
    struct vm_heap *heap; /* what device code's malloc may take; NULL: all memory */
    const _Atomic bool
        *stop; /* set from outside: give up with CUDA_ERROR_LAUNCH_FAILED; may be NULL */
};

/* Runs the whole grid and returns when it has finished: on the calling thread and, for grids worth
 * it, on a pool of one worker per further core (started at first use).  CUDA_SUCCESS, or the first
 * fault in *fault.  Instruction budget: TFR_SOFT_BUDGET thread-instructions (0: none, the default).
 */
CUresult vm_run(const struct vm_launch *launch, struct vm_fault *fault);

/* Thread-instructions retired by this process so far: what tf-bench divides by time. */
uint64_t vm_instructions(void);

/* What kernels printed and TFR_SOFT_LATE_TEXT kept back goes to stdout. */
void vm_text_flush(void);

#endif
