// AVX2 and AVX-VNNI.

#include "avx_vnni/dot.h"
#include "wide256/multiply.h"
#include "wide256/pick.h"
#include "wide256/quantize.h"

namespace subllm {

const Kernels kAvxVnniKernels = {"avx_vnni",      kLanes,       kFill, quantize, scratch_bytes,
                               multiply<Dot>, picked_bytes, pick};

}  // namespace subllm
