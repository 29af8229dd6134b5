//! Guides: how to run a cluster on [several machines](several_machines), and coming [from Celery, Dask
//! and Ray](from_celery_dask_and_ray).
//!
//! This module contains documentation only. Start with the [front page](crate).

#[doc(alias("celery", "dask", "ray", "distributed"))]
pub mod from_celery_dask_and_ray;
#[doc(alias("deployment", "systemd", "production"))]
pub mod several_machines;
