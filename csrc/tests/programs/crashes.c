/* crashes.c: dies of SIGSEGV, by a write to address 0 and not by kill(2). */
int main(void) {
    volatile int *nowhere = 0;
    *nowhere = 1; /* NOLINT(clang-analyzer-core.NullDereference): that is what it is for */
    return 0;
}
