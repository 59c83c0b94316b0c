// SPDX-License-Identifier: GPL-2.0

#include <linux/device.h>
#include <linux/kernel.h>
#include <linux/scatterlist.h>
#include <linux/skbuff.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

__rust_helper void rust_vsock_helper_virtio_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

/* Unlike virtio_has_feature(), no BUG() for a bit that the driver did not list. */
__rust_helper bool rust_vsock_helper_virtio_test_feature(const struct virtio_device *vdev,
							 unsigned int fbit)
{
	return fbit < VIRTIO_FEATURES_BITS && __virtio_test_bit(vdev, fbit);
}

__rust_helper int rust_vsock_helper_virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
						    struct virtqueue *vqs[],
						    struct virtqueue_info vqs_info[])
{
	return virtio_find_vqs(vdev, nvqs, vqs, vqs_info, NULL);
}

__rust_helper void rust_vsock_helper_virtio_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}

/* A device without a configuration space has no such operation. */
__rust_helper bool rust_vsock_helper_virtio_has_config(struct virtio_device *vdev)
{
	return vdev->config->get;
}

__rust_helper void rust_vsock_helper_virtio_config_get(struct virtio_device *vdev,
						       unsigned int offset, void *buf,
						       unsigned int len)
{
	vdev->config->get(vdev, offset, buf, len);
}

__rust_helper u32 rust_vsock_helper_virtio_config_generation(struct virtio_device *vdev)
{
	return vdev->config->generation ? vdev->config->generation(vdev) : 0;
}

/* Unlike sg_set_buf() alone, this forgets what the entry was used for before. */
__rust_helper void rust_vsock_helper_sg_entry_set_buf(struct scatterlist *sg, const void *buf,
						      unsigned int len)
{
	sg->page_link = 0;
	sg_set_buf(sg, buf, len);
}

__rust_helper void rust_vsock_helper_sg_mark_end(struct scatterlist *sg)
{
	sg_mark_end(sg);
}

/* Describes what is behind the headroom of @skb in the @nents entries at @sg. */
__rust_helper int rust_vsock_helper_skb_payload_to_sg(struct sk_buff *skb, struct scatterlist *sg,
						      unsigned int nents)
{
	sg_init_table(sg, nents);
	return skb_to_sgvec_nomark(skb, sg, 0, skb->len);
}

__rust_helper void rust_vsock_helper_device_lock(struct device *dev)
{
	device_lock(dev);
}

__rust_helper void rust_vsock_helper_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

/* Neither being switched off nor asleep. */
__rust_helper bool rust_vsock_helper_system_is_running(void)
{
	return system_state == SYSTEM_RUNNING;
}
