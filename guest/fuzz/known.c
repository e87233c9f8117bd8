/* NoCloud's meta-data and seeds; what they would store is looked at instead. */
#include "fuzz.h"
#include "metadata.h"

#include <string.h>

static bool looked_at(const char *name, const void *bytes, size_t length)
{
    unsigned sum = (unsigned)strlen(name);
    for (size_t i = 0; i < length; i++)
        sum += ((const unsigned char *)bytes)[i];
    return sum || !length;
}

#define store(name, bytes, length, mode) ((void)(mode), looked_at(name, bytes, length))
#define store_text(name, text) looked_at(name, text, strlen(text))
#define store_keys(keys, length) looked_at("keys", keys, length)
#define store_cloud_metadata fuzzed_cloud_metadata
void fuzzed_cloud_metadata(const char *text, size_t length);
#include "../src/kit/metadata_known.c"
#undef store_cloud_metadata
#define nocloud_probe fuzzed_probe
#define nocloud_extract fuzzed_extract
bool fuzzed_probe(const struct provider *provider);
bool fuzzed_extract(const struct provider *provider);
#include "../src/kit/metadata_nocloud.c"

void fuzz_known(const unsigned char *bytes, size_t length)
{
    scoped_free char *text = fuzz_text(bytes, length);
    fuzzed_cloud_metadata(text, length);
}

void fuzz_seed(const unsigned char *bytes, size_t length)
{
    scoped_seed seed = {0};
    scoped_free char *text = fuzz_text(bytes, length);
    seed_parse(&seed, text);
}
