/* Entry for libFuzzer; fuzz/run builds and runs it. */
#include "schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_schema(data, size); }
