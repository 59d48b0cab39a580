// AVX2 with FMA and F16C.

#include "avx2/dot.h"
#include "wide256/multiply.h"
#include "wide256/pick.h"
#include "wide256/quantize.h"

namespace subllm {

const Kernels kAvx2Kernels = {"avx2",      kLanes,       kFill, quantize, scratch_bytes,
                               multiply<Dot>, picked_bytes, pick};

}  // namespace subllm
