/* Numbers as they lie on disks and in messages, whatever this processor's order is; and the check sum of UEFI and gzip. */
#pragma once

#include <stddef.h>
#include <stdint.h>

static inline uint16_t le16_at(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t le32_at(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t le64_at(const unsigned char *at)
{
    return le32_at(at) | (uint64_t)le32_at(at + 4) << 32;
}

static inline uint32_t be32_at(const unsigned char *at)
{
    return at[3] | (uint32_t)at[2] << 8 | (uint32_t)at[1] << 16 | (uint32_t)at[0] << 24;
}

static inline uint64_t be64_at(const unsigned char *at)
{
    return be32_at(at + 4) | (uint64_t)be32_at(at) << 32;
}

static inline void put_le32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static inline void put_le64(unsigned char *at, uint64_t value)
{
    put_le32(at, (uint32_t)value);
    put_le32(at + 4, (uint32_t)(value >> 32));
}

/* CRC-32 (ISO 3309). */
static inline uint32_t crc32_of(const void *bytes, size_t length)
{
    uint32_t crc = ~0U;
    for (const unsigned char *at = bytes; length--;) {
        crc ^= *at++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
    }
    return ~crc;
}
