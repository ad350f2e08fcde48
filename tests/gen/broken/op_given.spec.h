#include "proto/spec/words.h"

/* Never on the wire. */
TFR_CALL(0x0001, LOCAL)
CUresult cuInit(unsigned int flags);
