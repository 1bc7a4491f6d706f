"""What torch's recurrent cells and layers promise."""

from qfuzz.ir.contract import Contract

RECURRENT = Contract(
    terms="accumulator",
    k=7,
    tie="either_even",
    function_ulps=4.0,
    source="aten/src/ATen/native/RNN.cpp: two apply_dynamic (QuantUtils.h ChooseQuantizationParams in float64, x * "
    "fl(1/scale), float(acc) * fl(s_x * s_w) + bias; float16: fbgemm cblas_gemm_compute in float32), added; cells have "
    "reduce_range (DEFINE_QUANTIZED_RNN_CELL_DYNAMIC), older ones have not (fbgemm_linear_int8_weight_fp32_activation, "
    "QuantizedLinear.cpp), layers as make_quantized_cell_params_dynamic is told; "
    "sigmoid_, tanh_ of sleef (1 ulp), exp and reciprocal; products and sums of states one by one",
)
