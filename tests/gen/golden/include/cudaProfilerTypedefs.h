typedef CUresult (CUDAAPI *PFN_cuProfilerStop_v4000)(void);
