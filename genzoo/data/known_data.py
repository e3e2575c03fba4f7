"""What is known of data sets with names: what their classes are called, and what their test sets hold."""

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
THREE_DIGIT_NAMES = tuple(f"{a} {b} {c}" for a in DIGIT_NAMES for b in DIGIT_NAMES for c in DIGIT_NAMES)

KNOWN_TEST_SETS = {
    "digits": "b031da4b3bae49b1", "mnist": "f72e2a709bf79f32", "mnist-binary": "6b60820f203a52ad",
    "fashion-mnist": "f6554e7a5978c5f0",
}  # fmt: skip
"""Digests of test sets whose name says what they are; torchvision checks the files of cifar10 itself."""
