"""Standard ONNX operators that TensorRT does not accept."""

from __future__ import annotations

from typing import Final

# Those that TensorRT-RTX 1.7's parser reports as unknown.
UNKNOWN_TO_TENSORRT: Final = frozenset(
    {
        *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr"),
        *("BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence"),
        *("ConvInteger", "CumProd", "DFT", "DeformConv", "Det", "DynamicQuantizeLinear"),
        *("ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix"),
        *("Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement"),
        *("OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt"),
        *("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
        *("SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence"),
        *("StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"),
    }
)
OPSETS: Final = range(13, 24)  # accepted by that parser
