/* Whom to ask: what the arguments say, else everybody, first the one that firmware or command line name. */
#include "metadata.h"

#include <string.h>

const struct provider providers[] = {
    {"aws", "AWS", false, service_probe, service_extract, &aws},
    {"gcp", "GCP", false, service_probe, gcp_extract, &gcp},
    {"hetzner", "Hetzner", false, service_probe, service_extract, &hetzner},
    {"openstack", "openstack", false, openstack_probe, openstack_extract, &openstack},
    {"scaleway", "Scaleway", false, scaleway_probe, scaleway_extract, NULL},
    {"vultr", "Vultr", false, service_probe, service_extract, &vultr},
    {"digitalocean", "DigitalOcean", false, service_probe, service_extract, &digitalocean},
    {"equinixmetal", "EquinixMetal", true, metal_probe, metal_extract, NULL},
    {"metaldata", "metaldata", false, service_probe, service_extract, &metaldata},
    {"azure", "Azure", false, azure_probe, azure_extract, NULL},
    {"vmware", "VMWARE", false, vmware_probe, vmware_extract, NULL},
    {"nocloud", "NoCloud", false, nocloud_probe, nocloud_extract, NULL},
    {0},
};

char *providers_list(void)
{
    char *list = must_dup("");
    for (const struct provider *at = providers; at->name; at++) {
        char *longer = format("%s%s ", list, at->name);
        free(list);
        list = longer;
    }
    return list;
}

static const struct hint {
    const char *provider, *file, *text; /* what the file begins with */
} hints[] = {
    {"aws", "sys_vendor", "Amazon EC2"},
    {"aws", "product_uuid", "ec2"},
    {"aws", "bios_version", "4.11.amazon"},
    {"gcp", "sys_vendor", "Google"},
    {"gcp", "product_name", "Google"},
    {"azure", "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"},
    {"hetzner", "sys_vendor", "Hetzner"},
    {"openstack", "product_name", "OpenStack"},
    {"openstack", "sys_vendor", "OpenStack"},
    {"scaleway", "sys_vendor", "Scaleway"},
    {"vultr", "sys_vendor", "Vultr"},
    {"digitalocean", "sys_vendor", "DigitalOcean"},
    {"vmware", "sys_vendor", "VMware"},
};

const char *hinted(void)
{
    for (size_t i = 0; i < COUNT(hints); i++) {
        scoped_free char *name = format("/sys/class/dmi/id/%s", hints[i].file);
        scoped_free char *path = host_path(name);
        scoped_free char *text = read_line(path);
        if (text && starts_with(text, hints[i].text))
            return hints[i].provider;
    }
    return NULL;
}

static void want_first(struct wanted *wanted, const char *name)
{
    for (size_t i = 0; i < wanted->count; i++)
        if (strcmp(wanted->list[i]->name, name) == 0) {
            const struct provider *chosen = wanted->list[i];
            memmove(wanted->list + 1, wanted->list, i * sizeof(chosen));
            wanted->list[0] = chosen;
        }
}

void want_default(struct wanted *wanted)
{
    for (const struct provider *at = providers; at->name; at++)
        if (!at->asked)
            wanted->list[wanted->count++] = at;
    wanted->disks = true;
    const char *hint = hinted();
    if (hint) {
        detail("the firmware speaks for %s", hint);
        want_first(wanted, hint);
    }
    if (nocloud_probe(NULL)) /* someone wrote it on the command line: that is no guess */
        want_first(wanted, "nocloud");
}

bool want(struct wanted *wanted, const char *name)
{
    if (strcmp(name, "cdrom") == 0) {
        wanted->disks = wanted->disks_named = true;
        return true;
    }
    if (wanted->count == WANTED_MAX || wanted->file_count == WANTED_MAX)
        return false;
    if (starts_with(name, "file=")) {
        wanted->files[wanted->file_count++] = name + strlen("file=");
        return true;
    }
    for (const struct provider *at = providers; at->name; at++)
        if (strcmp(at->name, name) == 0 || (strcmp(name, "packet") == 0 && strcmp(at->name, "equinixmetal") == 0)) {
            wanted->list[wanted->count++] = at;
            return true;
        }
    return false;
}
