/* base64 (RFC 4648), gzip (RFC 1952) and deflate (RFC 1951). */
#include "bytes.h"
#include "metadata.h"

#include <string.h>

char *base64_decode(const char *text, size_t length, size_t *decoded)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *bytes = must_alloc(length / 4 * 3 + 4);
    uint32_t bits = 0;
    unsigned count = 0, padding = 0;
    *decoded = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\n' || c == '\r' || c == ' ' || c == '\t')
            continue;
        const char *digit = c ? memchr(alphabet, c, 64) : NULL;
        if (c == '=' && padding < 2) {
            padding++;
        } else if (digit && !padding) {
            bits = bits << 6 | (uint32_t)(digit - alphabet);
            if (++count % 4 == 0) {
                bytes[(*decoded)++] = (char)(bits >> 16);
                bytes[(*decoded)++] = (char)(bits >> 8);
                bytes[(*decoded)++] = (char)bits;
            }
        } else {
            free(bytes);
            return NULL;
        }
    }
    unsigned rest = count % 4;
    if (rest == 1 || (padding && rest + padding != 4)) {
        free(bytes);
        return NULL;
    }
    if (rest >= 2)
        bytes[(*decoded)++] = (char)(rest == 2 ? bits >> 4 : bits >> 10);
    if (rest == 3)
        bytes[(*decoded)++] = (char)(bits >> 2);
    bytes[*decoded] = 0;
    return bytes;
}

struct inflate {
    const unsigned char *in, *end;
    uint32_t bits;
    unsigned count;
    char *out;
    size_t length, room, limit;
    bool broken;
};

static unsigned take(struct inflate *from, unsigned count)
{
    while (from->count < count) {
        if (from->in == from->end) {
            from->broken = true;
            return 0;
        }
        from->bits |= (uint32_t)*from->in++ << from->count;
        from->count += 8;
    }
    unsigned value = from->bits & ((1u << count) - 1);
    from->bits >>= count;
    from->count -= count;
    return value;
}

static void emit(struct inflate *to, char byte)
{
    if (to->length == to->limit) {
        to->broken = true;
        return;
    }
    if (to->length == to->room) {
        size_t room = to->room ? to->room * 2 : 4096;
        char *bigger = must_alloc(room + 1);
        if (to->length)
            memcpy(bigger, to->out, to->length);
        free(to->out);
        to->out = bigger;
        to->room = room;
    }
    to->out[to->length++] = byte;
}

/* Canonical codes: how many of each length, and the symbols in their order. */
struct codes {
    uint16_t counts[16], symbols[288];
};

static bool make_codes(struct codes *codes, const unsigned char *lengths, unsigned count)
{
    uint16_t at[16] = {0};
    *codes = (struct codes){0};
    for (unsigned i = 0; i < count; i++)
        codes->counts[lengths[i]]++;
    codes->counts[0] = 0;
    int left = 1;
    for (unsigned i = 1; i < 16; i++) {
        left = left * 2 - codes->counts[i];
        if (left < 0)
            return false;
        at[i] = i > 1 ? (uint16_t)(at[i - 1] + codes->counts[i - 1]) : 0;
    }
    for (unsigned i = 0; i < count; i++)
        if (lengths[i])
            codes->symbols[at[lengths[i]]++] = (uint16_t)i;
    return true;
}

static unsigned symbol(struct inflate *from, const struct codes *codes)
{
    int code = 0, first = 0, index = 0;
    for (unsigned length = 1; length < 16; length++) {
        code |= (int)take(from, 1);
        int count = codes->counts[length];
        if (from->broken)
            return 0;
        if (code - first < count)
            return codes->symbols[index + code - first];
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    from->broken = true;
    return 0;
}

static void stored_block(struct inflate *from)
{
    from->bits = from->count = 0;
    if (from->end - from->in < 4) {
        from->broken = true;
        return;
    }
    unsigned length = from->in[0] | (unsigned)from->in[1] << 8, check = from->in[2] | (unsigned)from->in[3] << 8;
    from->in += 4;
    if ((length ^ check) != 0xFFFF || (size_t)(from->end - from->in) < length) {
        from->broken = true;
        return;
    }
    while (length-- && !from->broken)
        emit(from, (char)*from->in++);
}

static void coded_block(struct inflate *from, const struct codes *literals, const struct codes *distances)
{
    static const uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                           31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const unsigned char length_bits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    while (!from->broken) {
        unsigned value = symbol(from, literals);
        if (from->broken || value == 256)
            return;
        if (value < 256) {
            emit(from, (char)value);
            continue;
        }
        value -= 257;
        if (value >= COUNT(length_base)) {
            from->broken = true;
            return;
        }
        size_t length = length_base[value] + take(from, length_bits[value]);
        unsigned code = symbol(from, distances);
        if (from->broken || code >= 30) {
            from->broken = true;
            return;
        }
        unsigned extra = code < 4 ? 0 : code / 2 - 1;
        size_t distance = (code < 4 ? code + 1 : ((2 + code % 2) << extra) + 1) + (extra ? take(from, extra) : 0);
        if (distance > from->length) {
            from->broken = true;
            return;
        }
        while (length-- && !from->broken)
            emit(from, from->out[from->length - distance]);
    }
}

static void fixed_block(struct inflate *from)
{
    unsigned char lengths[288];
    struct codes literals, distances;
    for (unsigned i = 0; i < 288; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    make_codes(&literals, lengths, 288);
    memset(lengths, 5, 30);
    make_codes(&distances, lengths, 30);
    coded_block(from, &literals, &distances);
}

static void dynamic_block(struct inflate *from)
{
    static const unsigned char order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned char lengths[320] = {0};
    struct codes codes, distances;
    unsigned literal_count = take(from, 5) + 257, distance_count = take(from, 5) + 1, code_count = take(from, 4) + 4;
    for (unsigned i = 0; i < code_count; i++)
        lengths[order[i]] = (unsigned char)take(from, 3);
    from->broken |= literal_count > 286 || distance_count > 30 || !make_codes(&codes, lengths, 19);
    memset(lengths, 0, sizeof(lengths));
    for (unsigned i = 0; i < literal_count + distance_count && !from->broken;) {
        unsigned value = symbol(from, &codes);
        if (value < 16) {
            lengths[i++] = (unsigned char)value;
            continue;
        }
        unsigned char repeated = 0;
        from->broken |= value == 16 && i == 0;
        if (value == 16 && i)
            repeated = lengths[i - 1];
        unsigned times = value == 16 ? 3 + take(from, 2) : value == 17 ? 3 + take(from, 3) : 11 + take(from, 7);
        from->broken |= i + times > literal_count + distance_count;
        while (times-- && !from->broken)
            lengths[i++] = repeated;
    }
    struct codes literals;
    if (!from->broken && make_codes(&literals, lengths, literal_count) &&
        make_codes(&distances, lengths + literal_count, distance_count))
        coded_block(from, &literals, &distances);
    else
        from->broken = true;
}

/* The header's optional fields are skipped; returns where the data begins, or NULL. */
static const unsigned char *after_header(const unsigned char *at, const unsigned char *end)
{
    if (end - at < 18 || at[0] != 0x1F || at[1] != 0x8B || at[2] != 8 || at[3] & 0xE0)
        return NULL;
    unsigned flags = at[3];
    at += 10;
    if (flags & 4) {
        size_t extra = at[0] | (size_t)at[1] << 8;
        if ((size_t)(end - at) < extra + 2)
            return NULL;
        at += extra + 2;
    }
    for (unsigned field = 8; field <= 16; field *= 2)
        if (flags & field) {
            at = memchr(at, 0, (size_t)(end - at));
            if (!at)
                return NULL;
            at++;
        }
    if (flags & 2)
        at += 2;
    return at < end ? at : NULL;
}

char *gzip_decode(const char *bytes, size_t length, size_t limit, size_t *decoded)
{
    const unsigned char *start = (const unsigned char *)bytes, *end = start + length;
    struct inflate from = {.in = length ? after_header(start, end) : NULL, .end = end, .limit = limit};
    bool last = false;
    if (!from.in)
        return NULL;
    while (!last && !from.broken) {
        last = take(&from, 1);
        unsigned kind = take(&from, 2);
        if (from.broken)
            break;
        if (kind == 0)
            stored_block(&from);
        else if (kind == 1)
            fixed_block(&from);
        else if (kind == 2)
            dynamic_block(&from);
        else
            from.broken = true;
    }
    if (!from.out)
        from.out = must_alloc(1);
    if (from.broken || from.end - from.in < 8 || le32_at(from.in) != crc32_of(from.out, from.length) ||
        le32_at(from.in + 4) != (uint32_t)from.length) {
        free(from.out);
        return NULL;
    }
    from.out[from.length] = 0;
    *decoded = from.length;
    return from.out;
}
