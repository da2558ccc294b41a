/* Entry for libFuzzer; fuzz/run builds and runs it. */
#define _GNU_SOURCE
#include "beam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_beam(data, size); }
