// SPDX-License-Identifier: GPL-2.0

#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

/*
 * Reads a parameter of a module that may or may not be loaded: what its file in
 * /sys/module shows, wherever sysfs is mounted.
 *
 * A module waits for the last reference to its kobject before it goes away.
 */
__rust_helper bool rust_vsock_helper_foreign_param_ushort(const char *module,
							  const char *param,
							  unsigned short *value)
{
	bool found = false;
#ifdef CONFIG_SYSFS
	struct kset *modules = THIS_MODULE->mkobj.kobj.kset;
	struct kobject *kobj = modules ? kset_find_obj(modules, module) : NULL;
	struct module *mod;
	unsigned int i;

	if (!kobj)
		return false;
	/* Nothing for what is built in. */
	mod = container_of(kobj, struct module_kobject, kobj)->mod;
	for (i = 0; mod && i < mod->num_kp; i++) {
		const struct kernel_param *kp = &mod->kp[i];

		if (kp->ops == &param_ops_ushort && !strcmp(kp->name, param)) {
			*value = READ_ONCE(*(unsigned short *)kp->arg);
			found = true;
			break;
		}
	}
	kobject_put(kobj);
#endif
	return found;
}
