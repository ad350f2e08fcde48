/* Streams and events.  A stream's progress is a word on the feedback page; an event is a stream
 * word and a seq, so queries are loads. */
#include "proto/spec/words.h"

/* Creates a stream; the client names it. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, OUT_OF_MEMORY))
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);

/* Creates a stream with a priority. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, OUT_OF_MEMORY))
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority);

/* Destroys a stream; its work goes on. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_HANDLE))
CUresult cuStreamDestroy_v2(CUstream stream);

/* Has the stream done all it was given? */
TFR_CALL(0x0000, POLL, PTSZ)
CUresult cuStreamQuery(CUstream stream);

/* Waits until it has. */
TFR_CALL(0x0000, POLL, PTSZ)
CUresult cuStreamSynchronize(CUstream stream);

/* Later work of the stream waits for an event. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);

/* Flags of a stream. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetFlags(CUstream stream, unsigned int *flags);

/* Priority of a stream. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetPriority(CUstream stream, int *priority);

/* A number that no other stream of the process has. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetId(CUstream stream, unsigned long long *id);

/* An attribute of a stream. */
TFR_CALL(0x0000, CUSTOM, PTSZ)
CUresult cuStreamGetAttribute(CUstream stream, CUstreamAttrID id, CUstreamAttrValue *value);

/* Sets an attribute of a stream. */
TFR_CALL(0x0000, CUSTOM, PTSZ)
CUresult cuStreamSetAttribute(CUstream stream, CUstreamAttrID id, const CUstreamAttrValue *value);

/* Gives a stream the attributes of another. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuStreamCopyAttributes(CUstream dst, CUstream src);

/* Context of a stream, which is never a green one. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetCtx_v2(CUstream stream, CUcontext *ctx, CUgreenCtx *green);

/* Context of a stream. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetCtx(CUstream stream, CUcontext *ctx);

/* Device of a stream. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetDevice(CUstream stream, CUdevice *dev);

/* No stream is capturing: graphs are not forwarded yet. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status);

/* Creates an event; the client names it. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, OUT_OF_MEMORY))
CUresult cuEventCreate(CUevent *event, unsigned int flags);

/* Destroys an event. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_HANDLE))
CUresult cuEventDestroy_v2(CUevent event);

/* Records an event in a stream. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_HANDLE))
CUresult cuEventRecord(CUevent event, CUstream stream);

/* Records an event in a stream, with flags. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_HANDLE, INVALID_VALUE))
CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags);

/* Has the stream passed the event? */
TFR_CALL(0x0000, POLL)
CUresult cuEventQuery(CUevent event);

/* Waits until it has. */
TFR_CALL(0x0000, POLL)
CUresult cuEventSynchronize(CUevent event);

/* Milliseconds between two events, by the GPU's clock. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end);

/* Milliseconds between two events (older name). */
TFR_CALL(0x0000, CUSTOM)
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end);

/* No stream is capturing. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id);

/* No stream is capturing. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **nodes, size_t *node_n);

/* No stream is capturing. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **nodes,
                                   const CUgraphEdgeData **edges, size_t *node_n);

/* The thread's capture mode: kept and given back. */
TFR_CALL(0x0000, LOCAL)
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode);
