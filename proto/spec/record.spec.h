/* Records of our own: what the hand-written ends of copy, launch, stream, event and image say. */
#include "proto/spec/words.h"

/* Retains a primary context or creates one, and names its legacy stream. */
TFR_RECORD(0x0001, context, SYNC, HELPER, NOCTX)
/* Creates a stream under the client's id; its marks go to the word the client chose. */
TFR_RECORD(0x0002, stream_new)
/* Destroys a stream. */
TFR_RECORD(0x0003, stream_free)
/* Stream word := seq when the stream gets here. */
TFR_RECORD(0x0004, mark)
/* Creates an event under the client's id. */
TFR_RECORD(0x0005, event_new)
/* Destroys an event. */
TFR_RECORD(0x0006, event_free)
/* Records an event and marks its stream. */
TFR_RECORD(0x0007, event_record)
/* A stream waits for an event. */
TFR_RECORD(0x0008, stream_wait)
/* One copy of any direction. */
TFR_RECORD(0x0009, copy)
/* Fills device memory, one or two dimensions. */
TFR_RECORD(0x000a, memset)
/* Launches a kernel with packed parameters. */
TFR_RECORD(0x000b, launch)
/* Allocates device memory where the driver likes. */
TFR_RECORD(0x000c, alloc, SYNC, HELPER)
/* Frees device memory. */
TFR_RECORD(0x000d, free, SYNC, HELPER)
/* Maps pinned client memory into the executor. */
TFR_RECORD(0x000e, host_map, SYNC, HELPER)
/* Unmaps it. */
TFR_RECORD(0x000f, host_unmap, SYNC, HELPER)
/* One piece of an image. */
TFR_RECORD(0x0010, image_put, SYNC)
/* Loads an uploaded image as a module or library. */
TFR_RECORD(0x0011, module_load, SYNC, HELPER)
/* Looks a kernel up and answers its layout and attributes. */
TFR_RECORD(0x0012, function_get, SYNC, HELPER)
/* Address and size of a variable. */
TFR_RECORD(0x0013, global_get, SYNC, HELPER)
/* Time between two recorded events. */
TFR_RECORD(0x0014, event_elapsed, SYNC)
/* Unloads a module or library. */
TFR_RECORD(0x0015, module_unload, SYNC, HELPER)
/* Sets an attribute of a function or kernel. */
TFR_RECORD(0x0016, function_set, SYNC, HELPER)
/* Launches a kernel and answers: cooperative and cluster launches. */
TFR_RECORD(0x0017, launch_asked, SYNC)
/* Where a stream is, for the first query after work. */
TFR_RECORD(0x0018, stream_query, SYNC)
/* Gives back the bytes of an uploaded image. */
TFR_RECORD(0x0019, image_free, SYNC)
/* Copies a rectangle or a box. */
TFR_RECORD(0x0038, rect)
/* Copies between devices. */
TFR_RECORD(0x0039, peer)
/* Destroys a context, or what was made in it. */
TFR_RECORD(0x0040, context_free, SYNC, HELPER, NOCTX)
/* Gives a context access to another's memory, or takes it. */
TFR_RECORD(0x0041, peer_access, SYNC, HELPER)
/* Attributes of a stream. */
TFR_RECORD(0x0042, stream_attr, SYNC)
/* How many clusters fit, or how large they may be. */
TFR_RECORD(0x0043, clusters, SYNC, HELPER)
/* One step of a link. */
TFR_RECORD(0x0060, link, SYNC, HELPER)
