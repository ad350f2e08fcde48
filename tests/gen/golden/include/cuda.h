/* A toolkit small enough to read, for the golden test of gen.py: the shapes of cuda.h that it looks at. */
typedef enum cudaError_enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1, /* a comment */
    CUDA_ERROR_INVALID_HANDLE = 400
} CUresult;

typedef enum CUlimit_enum { CU_LIMIT_STACK_SIZE = 0 } CUlimit;
typedef enum CUatomicOperation_enum { CU_ATOMIC_OPERATION_INTEGER_ADD = 0 } CUatomicOperation;
typedef enum CUcoredumpSettings_enum { CU_COREDUMP_FILE = 5 } CUcoredumpSettings;
typedef enum CUmemLocationType_enum { CU_MEM_LOCATION_TYPE_DEVICE = 1 } CUmemLocationType;

typedef int CUdevice_v1;
typedef CUdevice_v1 CUdevice;
typedef struct CUuuid_st {
    char bytes[16];
} CUuuid;
typedef struct CUmemLocation_st {
    CUmemLocationType type;
    int id;
} CUmemLocation_v1;
typedef CUmemLocation_v1 CUmemLocation;
typedef struct CUmemAccessDesc_st {
    CUmemLocation location;
    unsigned int flags;
} CUmemAccessDesc_v1;
typedef CUmemAccessDesc_v1 CUmemAccessDesc;
typedef struct CUlaunchConfig_st {
    unsigned int gridDimX;
    CUstream hStream;
    void *attrs;
} CUlaunchConfig;
