/* test_relay_schema.c: what operations take, in the words that a caller reads; and that nothing else gets to a worker. The walk is held
 * against another way of deciding in test_relay_fuzz.c. */
#define _GNU_SOURCE
#include "schema_reference.h"

#undef PUT /* both kinds of bytes have one */
#include "still_lab.h"

static struct rb_ops_config ops;
static char why[RB_SCHEMA_WHY_BYTES];

/* --- A program, written by hand ------------------------------------------------------------------------------------------------ */

static void begin(void) { memset(&ops, 0, sizeof ops); }
static uint32_t node(uint32_t kind, int64_t low, int64_t high) {
    ops.nodes[ops.nodes_count] = (struct rb_schema_node){.kind = kind, .low = low, .high = high};
    return ops.nodes_count++;
}
static void children(uint32_t of, uint32_t first) {
    ops.nodes[of].first = first;
    ops.nodes[of].count = ops.nodes_count - first;
}
static uint32_t named(uint32_t i, const char *text, uint32_t flags) {
    schema_text(&ops, &ops.nodes[i], text);
    ops.nodes[i].flags = flags;
    return i;
}
static void operation(const char *name, uint32_t opcode, uint32_t schema) {
    struct rb_op_config *op = &ops.table[ops.table_count++];
    memcpy(op->name, name, strlen(name) + 1);
    op->opcode = opcode;
    op->schema = schema;
}

/* {column: binary of 1 to 8, q: list of 1 to 3 floats of 0 to 1, how (may be missing): :low | :high} */
static void quantile(void) {
    begin();
    uint32_t root = node(RB_SCHEMA_MAP, 0, 0);
    named(node(RB_SCHEMA_BINARY, 1, 8), "column", 0);
    uint32_t q = named(node(RB_SCHEMA_LIST, 1, 3), "q", 0);
    uint32_t how = named(node(RB_SCHEMA_ATOM, 0, 0), "how", RB_SCHEMA_OPTIONAL);
    children(root, 1);
    children(q, node(RB_SCHEMA_FLOAT, schema_bits(0), schema_bits(1)));
    uint32_t words = named(node(RB_SCHEMA_TEXT, 0, 0), "low", 0);
    named(node(RB_SCHEMA_TEXT, 0, 0), "high", 0);
    children(how, words);
    operation("quantile", 3, root);
    CHECK_EQUAL(rb_schema_sound(&ops), 0);
}

static int takes(struct rb_slice payload, int is_term) {
    struct rb_schema_spent spent = {0};
    return rb_schema_check(&ops, 0, payload, is_term, &spent, why);
}
static int check(struct bytes *b) {
    int rc = takes(slice_of(b), 1);
    bytes_free(b);
    return rc;
}
static void says(struct bytes *b, const char *words) {
    CHECK_EQUAL(check(b), -EINVAL);
    if (strcmp(why, words) != 0) printf("says \"%s\", not \"%s\"\n", why, words);
    CHECK(strcmp(why, words) == 0);
}

static struct bytes request(const char *column, double q, const char *how) {
    struct bytes b = {0};
    put_map(&b, how ? 3 : 2);
    put_atom(&b, "q");
    put_list(&b, 2);
    put_float(&b, 0.5);
    put_float(&b, q);
    put_nil(&b);
    put_atom(&b, "column");
    put_binary(&b, column, (uint32_t)strlen(column));
    if (how) {
        put_atom(&b, "how");
        put_atom(&b, how);
    }
    return b;
}

/* --- Payloads ------------------------------------------------------------------------------------------------------------------- */

static void a_payload_as_declared_passes(void) {
    quantile();
    struct bytes b = request("delay", 1, NULL);
    CHECK_EQUAL(check(&b), 0);
    b = request("d", 0, "high");
    CHECK_EQUAL(check(&b), 0);
}

static void one_that_is_not_is_told_where_what_and_what_it_got(void) {
    quantile();
    struct bytes b = request("delay", 7, NULL);
    says(&b, "payload.q[1] must be a float of 0 to 1, got a float");
    b = request("", 0, NULL);
    says(&b, "payload.column must be a binary of 1 to 8 bytes, got a binary of 0 bytes");
    b = request("d", 0, "middle");
    says(&b, "payload.how must be one of :low :high, got :middle");
    b = (struct bytes){0};
    put_integer(&b, 5);
    says(&b, "payload must be a map, got 5");
    b = (struct bytes){0};
    put_map(&b, 1);
    put_atom(&b, "kolumn");
    put_nil(&b);
    says(&b, "payload has a key :kolumn; known: column q how");
    b = (struct bytes){0};
    put_map(&b, 1);
    put_atom(&b, "column");
    put_binary(&b, "d", 1);
    says(&b, "payload lacks the key q");
}

static void the_length_of_a_list_counts_in_every_form_that_it_has(void) {
    begin();
    uint32_t root = node(RB_SCHEMA_LIST, 2, 3);
    children(root, node(RB_SCHEMA_INTEGER, 0, 200));
    operation("list", 0, 0);
    CHECK_EQUAL(rb_schema_sound(&ops), 0);
    for (unsigned count = 0; count < 6; count++) {
        struct bytes string = {0}, cells = {0}, plain = {0};
        put_u8(&string, RB_TAG_STRING);
        put_u16(&string, count);
        put_fill(&string, 7, count);
        CHECK_EQUAL(check(&string), count == 2 || count == 3 ? 0 : -EINVAL);
        for (unsigned i = 0; i < count; i++) {
            put_list(&cells, 1);
            put_integer(&cells, i);
        }
        put_nil(&cells);
        CHECK_EQUAL(check(&cells), count == 2 || count == 3 ? 0 : -EINVAL);
        if (count) put_list(&plain, count);
        for (unsigned i = 0; i < count; i++) put_integer(&plain, 200);
        put_nil(&plain);
        CHECK_EQUAL(check(&plain), count == 2 || count == 3 ? 0 : -EINVAL);
    }
    struct bytes b = {0};
    put_list(&b, 2);
    put_integer(&b, 1);
    put_integer(&b, 2);
    put_integer(&b, 3);
    says(&b, "payload is an improper list");
    b = (struct bytes){0};
    put_u8(&b, RB_TAG_STRING);
    put_u16(&b, 3);
    put(&b, "\x01\xc9\x02", 3);
    says(&b, "payload[1] must be an integer of 0 to 200, got 201");
}

static void integers_have_bounds_beyond_32_bits_and_big_ones_too(void) {
    begin();
    operation("integer", 0, node(RB_SCHEMA_INTEGER, INT64_MIN, 1ll << 40));
    struct bytes b = {0};
    put_integer(&b, 1ll << 40);
    CHECK_EQUAL(check(&b), 0);
    put_integer(&b, (1ll << 40) + 1);
    CHECK_EQUAL(check(&b), -EINVAL);
    put_integer(&b, INT64_MIN);
    CHECK_EQUAL(check(&b), 0);
    for (int negative = 0; negative < 2; negative++) { /* of 9 bytes: below every bound, or above */
        put_u8(&b, RB_TAG_SMALL_BIG);
        put_u8(&b, 9);
        put_u8(&b, (unsigned)negative);
        put_fill(&b, 1, 9);
        CHECK_EQUAL(check(&b), negative ? 0 : -EINVAL);
    }
}

static void alternatives_are_told_apart_by_form(void) {
    begin();
    uint32_t root = node(RB_SCHEMA_ONE_OF, 0, 0);
    node(RB_SCHEMA_BINARY, 0, 2);
    node(RB_SCHEMA_INTEGER, 0, 9);
    children(root, 1);
    operation("either", 0, root);
    struct bytes b = {0};
    put_integer(&b, 9);
    CHECK_EQUAL(check(&b), 0);
    put_integer(&b, 10);
    says(&b, "payload must be an integer of 0 to 9, got 10");
    put_nil(&b);
    says(&b, "payload must be a binary of 0 to 2 bytes or an integer of 0 to 9, got []");
    CHECK_EQUAL(takes((struct rb_slice)BYTES("ab"), 0), 0);
    CHECK_EQUAL(takes((struct rb_slice)BYTES("abc"), 0), -EINVAL);
}

static void a_payload_of_too_many_terms_does_not_hold_up_the_others(void) {
    begin();
    uint32_t root = node(RB_SCHEMA_LIST, 0, INT64_MAX);
    children(root, node(RB_SCHEMA_INTEGER, 0, 1));
    operation("long", 0, 0);
    struct bytes b = {0};
    put_list(&b, RB_SCHEMA_TERMS_MAX + 10);
    for (int i = 0; i < RB_SCHEMA_TERMS_MAX + 10; i++) put_integer(&b, 1);
    put_nil(&b);
    says(&b, "payload has more than 1048576 terms");
}

/* A list of atoms, each of which may be any of 256, and is the last. */
static void put_last_words(struct bytes *b, uint32_t count) {
    put_list(b, count);
    for (uint32_t i = 0; i < count; i++) put_atom(b, "word_255");
    put_nil(b);
}
static void nor_does_one_of_too_many_alternatives(void) {
    begin();
    uint32_t root = node(RB_SCHEMA_LIST, 0, INT64_MAX);
    uint32_t words = node(RB_SCHEMA_ATOM, 0, 0);
    children(root, words);
    for (int i = 0; i < 256; i++) {
        char word[16];
        snprintf(word, sizeof word, "word_%03d", i);
        named(node(RB_SCHEMA_TEXT, 0, 0), word, 0);
    }
    children(words, words + 1);
    operation("words", 0, 0);
    CHECK_EQUAL(rb_schema_sound(&ops), 0);
    struct bytes b = {0};
    put_last_words(&b, RB_SCHEMA_LOOKS_MAX / 256);
    CHECK_EQUAL(check(&b), 0);
    put_last_words(&b, RB_SCHEMA_LOOKS_MAX / 256 + 300);
    says(&b, "payload has too many terms for so many alternatives: more than 16777216 to look at");
}

static void a_program_that_is_not_sound_is_not_walked(void) {
    quantile();
    const struct rb_ops_config good = ops;
#define UNSOUND(change)                              \
    do {                                             \
        ops = good;                                  \
        change;                                      \
        CHECK_EQUAL(rb_schema_sound(&ops), -EINVAL); \
    } while (0)
    UNSOUND(ops.nodes[0].first = 0);
    UNSOUND(ops.nodes[0].count = 1000);
    UNSOUND(ops.nodes[0].first = UINT32_MAX);
    UNSOUND(ops.nodes[1].kind = RB_SCHEMA_KINDS);
    UNSOUND(ops.nodes[2].count = 0);
    UNSOUND(ops.nodes[2].text_at = ops.text_count + 1);
    UNSOUND(ops.nodes[2].text_bytes = UINT32_MAX);
    UNSOUND(ops.nodes[5].kind = RB_SCHEMA_ANY);  /* in an atom */
    UNSOUND(ops.nodes[1].kind = RB_SCHEMA_TEXT); /* in a map */
    UNSOUND(ops.table[0].schema = ops.nodes_count);
    UNSOUND(ops.table[0].opcode = 65536);
    UNSOUND(ops.table[0].name[0] = 0);
    UNSOUND(memset(ops.table[0].name, 'x', sizeof ops.table[0].name));
    UNSOUND(ops.table_count = 2; ops.table[1] = ops.table[0]);
    UNSOUND(ops.nodes_count = RB_SCHEMA_NODES_MAX + 1);
    for (int deep = 15; deep < 18; deep++) {
        begin();
        for (int i = 0; i < deep; i++) node(RB_SCHEMA_LIST, 0, 9);
        node(RB_SCHEMA_ANY, 0, 0);
        for (uint32_t i = 0; i + 1 < ops.nodes_count; i++) {
            ops.nodes[i].first = i + 1;
            ops.nodes[i].count = 1;
        }
        CHECK_EQUAL(rb_schema_sound(&ops), deep <= RB_SCHEMA_DEPTH_MAX ? 0 : -EINVAL);
    }
}

/* --- In a relay ----------------------------------------------------------------------------------------------------------------- */

static void open_with_ops(struct still *s) {
    struct rb_role_config role = lab_role_config();
    quantile();
    operation("echo", 0, node(RB_SCHEMA_BINARY, 0, 3));
    role.ops = ops;
    still_open(s, &role, 1);
}

/* {submit, echo, Payload, #{Key => Value}} */
static void submit(struct still *s, struct bytes *payload, const char *key, const char *name,
                   int opcode) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->callers;
    uint8_t number[2] = {RB_TAG_SMALL_INTEGER, (uint8_t)opcode};
    lab_monitor(s->lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, key ? 4 : 3, "echo");
    lab_put(&b, payload->at, payload->size);
    if (key) {
        lab_put(&b, "\x74\x00\x00\x00\x01", 5);
        lab_put_atom(&b, key);
        if (name)
            lab_put_atom(&b, name);
        else
            lab_put(&b, number, 2);
    }
    lab_frame(s->lab.peer, &b);
    bytes_free(payload);
    still_round(s, 0);
}

static struct bytes binary(const char *text) {
    struct bytes b = {0};
    put_binary(&b, text, (uint32_t)strlen(text));
    return b;
}

/* One of `words`, and always the last: each costs as many looks. */
static void many_words(struct bytes *b, uint32_t count, int words) {
    char last[16];
    snprintf(last, sizeof last, "w%03d", words - 1);
    put_list(b, count);
    for (uint32_t i = 0; i < count; i++) put_atom(b, last);
    put_nil(b);
}

/* Each of its payloads is within the bound, and together they would hold the relay's thread for as long as all of them. */
static void the_payloads_of_a_batch_have_one_bound_together(void) {
    enum { WORDS = 500, ATOMS = RB_SCHEMA_LOOKS_MAX / WORDS * 6 / 10 };
    struct still s;
    struct rb_role_config role = lab_role_config();
    begin();
    uint32_t root = node(RB_SCHEMA_LIST, 0, INT64_MAX);
    uint32_t words = node(RB_SCHEMA_ATOM, 0, 0);
    children(root, words);
    for (int i = 0; i < WORDS; i++) {
        char word[8];
        snprintf(word, sizeof word, "w%03d", i);
        named(node(RB_SCHEMA_TEXT, 0, 0), word, 0);
    }
    children(words, words + 1);
    operation("words", 0, root);
    CHECK_EQUAL(rb_schema_sound(&ops), 0);
    role.ops = ops;
    still_open(&s, &role, 1);
    struct lab_bytes b = {.size = 0};
    struct bytes payloads = {0};
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    uint32_t caller = ++s.callers;
    lab_monitor(s.lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_verb_head(&b, 3, "submit_many", "echo");
    put_list(&payloads, 3);
    many_words(&payloads, ATOMS, WORDS);
    many_words(&payloads, ATOMS, WORDS);
    many_words(&payloads, 1, WORDS);
    put_nil(&payloads);
    rb_put_be32(head, (uint32_t)(3 + b.size + payloads.size));
    lab_write(s.lab.peer, head, sizeof head);
    lab_write(s.lab.peer, b.at, b.size);
    for (size_t at = 0; at < payloads.size; at += 4096) { /* the relay reads between */
        size_t left = payloads.size - at;
        lab_write(s.lab.peer, payloads.at + at, left < 4096 ? left : 4096);
        still_round(&s, 0);
    }
    bytes_free(&payloads);
    CHECK_EQUAL(still_stats(&s).accepted, 1);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD(&s, "op words: the payloads together have too many terms for so many alternatives"));
    still_close(&s);
}

static void a_request_names_its_operation_or_gives_its_number(void) {
    struct still s;
    struct rb_lab_request r;
    open_with_ops(&s);
    struct bytes b = request("d", 1, NULL);
    submit(&s, &b, "op", "quantile", 0);
    CHECK_EQUAL(rb_lab_request(s.workers[0], 0, &r), 0);
    CHECK_EQUAL(r.opcode, 3);
    CHECK(r.flags & RB_FLAG_TERM);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    b = request("d", 1, NULL);
    submit(&s, &b, "opcode", NULL, 3);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    b = binary("abc");
    submit(&s, &b, NULL, NULL, 0);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void what_no_operation_takes_gets_to_no_worker(void) {
    struct still s;
    open_with_ops(&s);
    struct bytes b = request("d", 2, NULL);
    submit(&s, &b, "op", "quantile", 0);
    CHECK(TOLD(&s, "submit: op quantile: payload.q[1] must be a float of 0 to 1, got a float"));
    b = binary("abcd");
    submit(&s, &b, NULL, NULL, 0);
    CHECK(TOLD(&s, "submit: op echo: payload must be a binary of 0 to 3 bytes, got a binary of 4"));
    b = binary("x");
    submit(&s, &b, "op", "median", 0);
    CHECK(TOLD(&s, "submit: role echo has no operation :median; it has: quantile (3), echo (0)"));
    b = binary("x");
    submit(&s, &b, "opcode", NULL, 9);
    CHECK(
        TOLD(&s, "submit: role echo has no operation of opcode 9; it has: quantile (3), echo (0)"));
    CHECK_EQUAL(still_stats(&s).accepted, 0);
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_BAD_REQUEST], 4);
    CHECK_EQUAL(still_role(&s).placed, 0);
    still_close(&s);
}

static void a_role_without_operations_has_none_to_name(void) {
    struct still s;
    struct rb_role_config role = lab_role_config();
    still_open(&s, &role, 1);
    struct bytes b = binary("x");
    submit(&s, &b, "op", "quantile", 0);
    CHECK(TOLD(&s,
               "submit: role echo names no operations (roles.echo.ops.NAME does); give an opcode"));
    still_close(&s);
}

static void a_worker_that_does_not_serve_them_is_refused(void) {
    static const struct {
        struct rb_worker_op op;
        const char *words;
    } cases[] = {
        {{.opcode = 3, .takes = 0, .name = "quantile"}, "operation echo (opcode 0) is not among"},
        {{.opcode = 0, .takes = 0, .name = "echo"}, "operation quantile (opcode 3) is not among"},
    };
    struct still s;
    struct rb_event e;
    open_with_ops(&s);
    for (int i = 0; i < 2; i++) {
        const char *rule;
        if (rb_lab_hire(s.lab.relay, 0, ++s.ids, 16, &s.workers[1 + i]) < 0) abort();
        CHECK_EQUAL(rb_link_declare(rb_lab_link(s.workers[1 + i]), &cases[i].op, 1, &rule), 0);
        rb_lab_greet(s.workers[1 + i], "echo");
        still_round(&s, 0);
        int found = 0;
        while (rb_relay_take(s.lab.relay, &e))
            found |= e.kind == RB_EVENT_WORKER_REFUSED &&
                     memmem(e.data, e.size, cases[i].words, strlen(cases[i].words)) != NULL;
        CHECK(found);
    }
    const struct rb_worker_op both[] = {
        {.opcode = 0, .takes = RB_TAKES_RAW, .name = "echo"},
        {.opcode = 3, .takes = RB_TAKES_TERM, .name = "q"},
        {.opcode = 9, .takes = 0, .name = "more"},
    };
    const char *rule;
    if (rb_lab_hire(s.lab.relay, 0, ++s.ids, 16, &s.workers[3]) < 0) abort();
    CHECK_EQUAL(rb_link_declare(rb_lab_link(s.workers[3]), both, 3, &rule), 0);
    rb_lab_greet(s.workers[3], "echo");
    still_round(&s, 0);
    CHECK_EQUAL(still_role(&s).workers_ready, 2);
    still_close(&s);
}

int main(void) {
    RUN(a_payload_as_declared_passes);
    RUN(one_that_is_not_is_told_where_what_and_what_it_got);
    RUN(the_length_of_a_list_counts_in_every_form_that_it_has);
    RUN(integers_have_bounds_beyond_32_bits_and_big_ones_too);
    RUN(alternatives_are_told_apart_by_form);
    RUN(a_payload_of_too_many_terms_does_not_hold_up_the_others);
    RUN(nor_does_one_of_too_many_alternatives);
    RUN(a_program_that_is_not_sound_is_not_walked);
    RUN(a_request_names_its_operation_or_gives_its_number);
    RUN(the_payloads_of_a_batch_have_one_bound_together);
    RUN(what_no_operation_takes_gets_to_no_worker);
    RUN(a_role_without_operations_has_none_to_name);
    RUN(a_worker_that_does_not_serve_them_is_refused);
    return check_end();
}
