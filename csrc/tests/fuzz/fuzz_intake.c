/* Entry for libFuzzer; fuzz/run builds and runs it. */
#include "intake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_intake(data, size); }
