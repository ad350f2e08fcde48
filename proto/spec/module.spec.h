/* Code: modules, libraries, kernels, their attributes, launches. */
#include "proto/spec/words.h"

/* Lazy or eager loading, as CUDA_MODULE_LOADING says. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode);

/* Loads a module from a file, which the client reads. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleLoad(CUmodule *module, const char *path);

/* Loads a module: the image is uploaded once. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleLoadData(CUmodule *module, const void *image);

/* Loads a module with JIT options. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int option_n,
                            CUjit_option *options, void **values);

/* Loads a module from a fatbin. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image);

/* Unloads a module and what was looked up in it. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleUnload(CUmodule module);

/* A kernel of a module; its layout and attributes come with the answer. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleGetFunction(CUfunction *fn, CUmodule module, const char *name);

/* A variable of a module. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuModuleGetGlobal_v2(CUdeviceptr *addr, size_t *len, CUmodule module, const char *name);

/* Loads a library: the image is uploaded once. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *jit_options,
                           void **jit_values, unsigned int jit_n, CUlibraryOption *options,
                           void **values, unsigned int option_n);

/* Unloads a library and what was looked up in it. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLibraryUnload(CUlibrary library);

/* A kernel of a library; its layout and attributes come with the answer. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name);

/* A variable of a library. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLibraryGetGlobal(CUdeviceptr *addr, size_t *len, CUlibrary library, const char *name);

/* How many kernels a library has. */
TFR_CALL(0x0510, SYNC)
CUresult cuLibraryGetKernelCount(TFR_OUT(1) unsigned int *count, CUlibrary library);

/* How many functions a module has. */
TFR_CALL(0x0511, SYNC)
CUresult cuModuleGetFunctionCount(TFR_OUT(1) unsigned int *count, CUmodule module);

/* The function of a kernel: the same handle. */
TFR_CALL(0x0000, LOCAL)
CUresult cuKernelGetFunction(CUfunction *fn, CUkernel kernel);

/* One attribute of a kernel. */
TFR_CALL(0x0000, LOCAL)
CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel,
                              CUdevice dev);

/* Name of a kernel. */
TFR_CALL(0x0000, LOCAL)
CUresult cuKernelGetName(const char **name, CUkernel kernel);

/* Name of a function. */
TFR_CALL(0x0000, LOCAL)
CUresult cuFuncGetName(const char **name, CUfunction fn);

/* A function that was looked up is loaded. */
TFR_CALL(0x0000, LOCAL)
CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction fn);

/* Offset and size of a parameter. */
TFR_CALL(0x0000, LOCAL)
CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *at, size_t *size);

/* One attribute of a function. */
TFR_CALL(0x0000, LOCAL)
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction fn);

/* Offset and size of a parameter. */
TFR_CALL(0x0000, LOCAL)
CUresult cuFuncGetParamInfo(CUfunction fn, size_t index, size_t *at, size_t *size);

/* Sets an attribute of a kernel. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                              CUdevice dev);

/* Sets an attribute of a function. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuFuncSetAttribute(CUfunction fn, CUfunction_attribute attribute, int value);

/* Cache preference of a function. */
TFR_CALL(0x0502, SYNC)
CUresult cuFuncSetCacheConfig(CUfunction fn, CUfunc_cache config);

/* Cache preference of a kernel: a hint, kept by nobody. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev);

/* Loads a lazily loaded function. */
TFR_CALL(0x0503, SYNC, HELPER)
CUresult cuFuncLoad(CUfunction fn);

/* Blocks of a kernel that fit one multiprocessor. */
TFR_CALL(0x0504, SYNC)
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(TFR_OUT(1) int *blocks, CUfunction fn,
                                                     int block_size, size_t shared);

/* The same, with flags. */
TFR_CALL(0x0505, SYNC)
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(TFR_OUT(1) int *blocks, CUfunction fn,
                                                              int block_size, size_t shared,
                                                              unsigned int flags);

/* Dynamic shared memory left per block. */
TFR_CALL(0x0506, SYNC)
CUresult cuOccupancyAvailableDynamicSMemPerBlock(TFR_OUT(1) size_t *bytes, CUfunction fn,
                                                 int blocks, int block_size);

/* The block size that fills a multiprocessor best; how much shared memory a size needs, the program
 * itself may be asked. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction fn,
                                          CUoccupancyB2DSize shared_of, size_t shared, int limit);

/* The same, with flags. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction fn,
                                                   CUoccupancyB2DSize shared_of, size_t shared,
                                                   int limit, unsigned int flags);

/* The largest cluster that a launch may have. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuOccupancyMaxPotentialClusterSize(int *size, CUfunction fn, const CUlaunchConfig *config);

/* How many clusters of a launch run at a time. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction fn, const CUlaunchConfig *config);

/* Bank size of shared memory: a hint that no device takes any more. */
TFR_CALL(0x0000, LOCAL)
CUresult cuFuncSetSharedMemConfig(CUfunction fn, CUsharedconfig config);

/* Launches a kernel: one record. */
TFR_CALL(0x0000, CUSTOM, PTSZ,
         TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, INVALID_CONTEXT, LAUNCH_OUT_OF_RESOURCES))
CUresult cuLaunchKernel(CUfunction fn, unsigned int grid_x, unsigned int grid_y,
                        unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                        unsigned int block_z, unsigned int shared, CUstream stream, void **params,
                        void **extra);

/* Launches a kernel with attributes: one record. */
TFR_CALL(0x0000, CUSTOM,
         TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, LAUNCH_OUT_OF_RESOURCES, NOT_SUPPORTED))
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction fn, void **params, void **extra);

/* Launches a kernel whose blocks synchronise with each other. */
TFR_CALL(0x0000, CUSTOM, PTSZ,
         TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, COOPERATIVE_LAUNCH_TOO_LARGE))
CUresult cuLaunchCooperativeKernel(CUfunction fn, unsigned int grid_x, unsigned int grid_y,
                                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                   unsigned int block_z, unsigned int shared, CUstream stream,
                                   void **params);

/* Begins a link; the driver's own linker does it. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLinkCreate_v2(unsigned int option_n, CUjit_option *options, void **values,
                         CUlinkState *state);

/* Adds an input, which is uploaded. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t len,
                          const char *name, unsigned int option_n, CUjit_option *options,
                          void **values);

/* Adds a file, which the client reads. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path,
                          unsigned int option_n, CUjit_option *options, void **values);

/* Links, and fetches the image. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLinkComplete(CUlinkState state, void **image, size_t *len);

/* Ends a link; its image goes with it. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuLinkDestroy(CUlinkState state);

/* Profiler marks: nothing to do. */
TFR_CALL(0x0000, LOCAL)
CUresult cuProfilerStart(void);

/* Profiler marks: nothing to do. */
TFR_CALL(0x0000, LOCAL)
CUresult cuProfilerStop(void);
