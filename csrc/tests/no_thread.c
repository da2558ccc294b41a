/* Linked with -Wl,--wrap=pthread_create into the tests that ONE_THREAD of the Makefile names: they are
 * not run under TSan, so they must not start to have threads unseen. */
#include <stdio.h>
#include <stdlib.h>

int __wrap_pthread_create(void);

int __wrap_pthread_create(void) {
    puts("this test starts a thread: take it out of ONE_THREAD in csrc/Makefile, so that TSan sees "
         "it");
    fflush(stdout);
    abort();
}
