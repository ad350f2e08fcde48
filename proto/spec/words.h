/* The annotation words of the spec.  To the compiler they are empty: a spec file is plain C and is
 * compiled against cuda.h, so that a prototype that drifts from the toolkit's does not build.  To
 * gen.py they say how a call crosses the wire.
 *
 * TFR_CALL(op, CLASS, flags...) stands on the line before a prototype; the comment before it
 * becomes the call's documentation.
 *
 *   CLASS   LOCAL   answered in the client by a hand-written function
 *           ASYNC   posted; needs TFR_ERRORS(...), the list of its immediate errors: apart from
 *                   NULL pointers and dead handles they are checked by a hand-written
 *                   CUresult tfr_check_<name>(same arguments)
 *           SYNC    asked: the caller waits for the answer
 *           POLL    hand-written in the client over the feedback page (documentation only)
 *           CUSTOM  generated request layout and dispatch entry, hand-written ends:
 *                   <name>() in the client, do_<name>() in the executor
 *           NONE    not forwarded: answers CUDA_ERROR_NOT_SUPPORTED, but the executor may call it
 *   flags   PTSZ    has a per-thread-default-stream twin (its last or only CUstream parameter)
 *           NOCTX   legal without a current context
 *           HELPER  may block in the driver: the executor runs it on a helper thread
 *           TFR_ERRORS(A, B)
 *   op      0x0000 for LOCAL, POLL, NONE, and CUSTOM calls that travel as a TFR_RECORD; else
 *           unique, never reused.  Words are demanded of calls with an op only
 *
 * TFR_RECORD(op, name, flags...) declares a record of ours that is no CUDA call: its layout is
 * struct tfr_<name>_req, written by hand in proto/wire.h, its handler is do_<name>().
 *
 *   parameter words: TFR_IN(n) TFR_OUT(n): n elements of the pointed-to type, n an expression over
 *   earlier scalar parameters; TFR_STR: NUL-terminated; TFR_OPT: may be NULL (before another word);
 *   TFR_NEW: the client names the new object; TFR_FREE: the handle dies with the call;
 *   TFR_BULK_IN(n) TFR_BULK_OUT(n): bytes that go by lane (CUSTOM only). */
#ifndef TFR_PROTO_SPEC_WORDS_H
#define TFR_PROTO_SPEC_WORDS_H

#include <cuda.h>

#define TFR_CALL(op, class, ...)
#define TFR_RECORD(op, name, ...)
#define TFR_ERRORS(...)
#define TFR_IN(n)
#define TFR_OUT(n)
#define TFR_BULK_IN(n)
#define TFR_BULK_OUT(n)
#define TFR_STR
#define TFR_OPT
#define TFR_NEW
#define TFR_FREE

#endif
