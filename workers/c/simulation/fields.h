/* fields.h: reading requests field by field: little endian, wherever a field lies; and refusing one by rule and value. */
#ifndef RINGBRIDGE_SIMULATION_FIELDS_H
#define RINGBRIDGE_SIMULATION_FIELDS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "payloads are little endian and so must be the host, as for every link"
#endif

/* In a function that returns an enum sim_code and has a `message` of SIM_MESSAGE_BYTES. */
#define REFUSE(code, ...)                                  \
    do {                                                   \
        snprintf(message, SIM_MESSAGE_BYTES, __VA_ARGS__); \
        return (code);                                     \
    } while (0)

static inline double f64_at(const uint8_t *bytes, size_t at) {
    double value;
    memcpy(&value, bytes + at, sizeof value);
    return value;
}

static inline uint32_t u32_at(const uint8_t *bytes, size_t at) {
    uint32_t value;
    memcpy(&value, bytes + at, sizeof value);
    return value;
}

static inline uint16_t u16_at(const uint8_t *bytes, size_t at) {
    uint16_t value;
    memcpy(&value, bytes + at, sizeof value);
    return value;
}

#endif
