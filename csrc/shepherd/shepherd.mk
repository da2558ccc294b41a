# Builds the shepherd and the programs that its tests run. From the root:
#     make -f csrc/shepherd/shepherd.mk
# Static and not position-independent: no loader, no relocations, so the fewest private pages.
CC ?= cc
RB_SHEPHERD_FLAGS := -std=gnu99 -Wall -Wextra -Werror -O2 -g
RB_SHEPHERD_LDFLAGS := -static
RB_SHEPHERD_HEADERS := $(wildcard csrc/shepherd/*.h) csrc/include/ringbridge/obituary.h \
	csrc/include/ringbridge/shepherd_protocol.h
RB_TEST_PROGRAMS := $(patsubst csrc/tests/programs/%.c,build/tests/programs/%,$(wildcard csrc/tests/programs/*.c))

.PHONY: shepherd
shepherd: build/bin/ringbridge-shepherd $(RB_TEST_PROGRAMS)

build/bin/ringbridge-shepherd: $(wildcard csrc/shepherd/*.c) $(RB_SHEPHERD_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(RB_SHEPHERD_FLAGS) -fno-pie -Icsrc/include -o $@ $(filter %.c,$^) $(RB_SHEPHERD_LDFLAGS)

build/tests/programs/%: csrc/tests/programs/%.c
	@mkdir -p $(@D)
	$(CC) $(RB_SHEPHERD_FLAGS) -o $@ $<
