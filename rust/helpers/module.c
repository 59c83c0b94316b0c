// SPDX-License-Identifier: GPL-2.0

#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

/*
 * Reads a parameter of a module that may or may not be loaded: what its file in
 * /sys/module shows, wherever sysfs is mounted.
 *
 * There is no function for it: those that show the file are private, and to open it
 * would depend on what the current process sees as /sys. So this does what they do.
 *
 * The module and its table of parameters stay: free_module(), and load_module() when
 * it fails, call mod_sysfs_teardown() first, which waits for the last reference to
 * the kobject. The value is there: the kobject is found after parse_args() only. It
 * is an unsigned short, as the operations are those of one, and nobody writes
 * to it with the parameters locked.
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
			kernel_param_lock(mod);
			*value = *(unsigned short *)kp->arg;
			kernel_param_unlock(mod);
			found = true;
			break;
		}
	}
	kobject_put(kobj);
#endif
	return found;
}
