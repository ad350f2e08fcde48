/* Initialisation and device queries: answered from the snapshot that came with hello. */
#include "proto/spec/words.h"

/* Connects to an executor and fetches the snapshot of its devices. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuInit(unsigned int flags);

/* The older of the executor's driver and the newest version this stub implements. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDriverGetVersion(int *version);

/* Device handle of an ordinal. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGet(CUdevice *device, int ordinal);

/* How many devices the executor offers. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetCount(int *count);

/* The device's name. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetName(char *name, int len, CUdevice dev);

/* The device's UUID. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev);

/* The device's UUID (of the MIG instance, where there is one). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev);

/* Bytes of device memory. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev);

/* One attribute; a table of overrides tells what remoting cannot offer. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice dev);

/* A few attributes at once (the oldest query). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev);

/* Affinity of contexts is not supported. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetExecAffinitySupport(int *supported, CUexecAffinityType type, CUdevice dev);

/* Major and minor compute capability. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev);

/* Device with this PCI bus id. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *text);

/* PCI bus id as text. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetPCIBusId(char *text, int len, CUdevice dev);

/* Can a device be given access to another's memory? */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice peer);

/* What it can do with it. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice dev,
                                 CUdevice peer);

/* Name of an error code. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuGetErrorName(CUresult error, const char **text);

/* Description of an error code. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuGetErrorString(CUresult error, const char **text);
