/* tags.h: the tags of the external term format, spelt as in the OTP documentation. */
#ifndef RINGBRIDGE_ETF_TAGS_H
#define RINGBRIDGE_ETF_TAGS_H

enum {
    VERSION_MAGIC = 131,
    RECORD_EXT = 67,
    NEW_FLOAT_EXT = 70,
    BIT_BINARY_EXT = 77,
    COMPRESSED = 80,
    ATOM_CACHE_REF = 82,
    NEW_PID_EXT = 88,
    NEW_PORT_EXT = 89,
    NEWER_REFERENCE_EXT = 90,
    SMALL_INTEGER_EXT = 97,
    INTEGER_EXT = 98,
    FLOAT_EXT = 99,
    ATOM_EXT = 100,
    REFERENCE_EXT = 101,
    PORT_EXT = 102,
    PID_EXT = 103,
    SMALL_TUPLE_EXT = 104,
    LARGE_TUPLE_EXT = 105,
    NIL_EXT = 106,
    STRING_EXT = 107,
    LIST_EXT = 108,
    BINARY_EXT = 109,
    SMALL_BIG_EXT = 110,
    LARGE_BIG_EXT = 111,
    NEW_FUN_EXT = 112,
    EXPORT_EXT = 113,
    NEW_REFERENCE_EXT = 114,
    SMALL_ATOM_EXT = 115,
    MAP_EXT = 116,
    ATOM_UTF8_EXT = 118,
    SMALL_ATOM_UTF8_EXT = 119,
    V4_PORT_EXT = 120
};

enum {
    ATOM_CHARACTERS_MAX = 255,
    TUPLE_ARITY_MAX = (1 << 24) - 1, /* ERTS, make_arityval */
    STRING_LENGTH_MAX = 65535,
    REFERENCE_WORDS_MAX = 5,
    FREE_VARIABLES_MAX = 255,
    SHORT_CREATION_MAX = 3,  /* of the tags with a one-byte creation */
    NEW_PORT_ID_BITS = 28,   /* OTP 25 sends larger ids in V4_PORT_EXT */
    PLAIN_KEY_DEPTH_MAX = 8, /* tuples in a dict's key: hash() recurses on the C stack */
    SAME_HASH_MAX = 16,      /* keys of one hash in a dict: each is compared with all before it */
    SAME_HASH_FROM = 64,     /* keys: a dict of no more is not looked at, */
    TRIES_FROM = 512,        /* nor one of so many keys that only numbers below 2^60 make slow */
    TRIES_A_KEY_MAX = 32,    /* on the average: probe.c */
    TRIES_MORE = 2048
};

#endif
