# Builds the shepherd and the programs that its tests run. From the root:
#     make -f csrc/shepherd/shepherd.mk
# Static and not position-independent: no loader, no relocations, so the fewest private pages.
CC ?= cc
RB_SHEPHERD_FLAGS := -std=gnu99 -Wall -Wextra -Werror -O2 -g
RB_SHEPHERD_LDFLAGS := -static
RB_SHEPHERD_HEADERS := $(wildcard csrc/shepherd/*.h) csrc/include/ringbridge/obituary.h \
	csrc/include/ringbridge/port_protocol.h csrc/include/ringbridge/shepherd_protocol.h
RB_TEST_PROGRAMS := $(patsubst csrc/tests/programs/%.c,build/tests/programs/%,$(wildcard csrc/tests/programs/*.c))

.PHONY: shepherd
shepherd: build/bin/ringbridge-shepherd $(RB_TEST_PROGRAMS)

build/bin/ringbridge-shepherd: $(wildcard csrc/shepherd/*.c) $(RB_SHEPHERD_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(RB_SHEPHERD_FLAGS) -fno-pie -Icsrc/include -o $@ $(filter %.c,$^) $(RB_SHEPHERD_LDFLAGS)

# The same under AddressSanitizer and UBSan, for its tests (tests/workers/test_shepherd_sanitized.py).
# Its stderr is /dev/null: a finding is its exit status, and a file build/tests/asan/shepherd.log.PID.
RB_SANITIZERS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
build/tests/asan/ringbridge-shepherd: $(wildcard csrc/shepherd/*.c) csrc/tests/shepherd_asan.c $(RB_SHEPHERD_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(RB_SHEPHERD_FLAGS) $(RB_SANITIZERS) -Icsrc/include \
		-DRB_ASAN_LOG='"$(CURDIR)/build/tests/asan/shepherd.log"' -o $@ $(filter %.c,$^)

build/tests/programs/%: csrc/tests/programs/%.c
	@mkdir -p $(@D)
	$(CC) $(RB_SHEPHERD_FLAGS) -o $@ $<
