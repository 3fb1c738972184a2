"""The audit: what is wrong with a set of images, found before anything is trained on it."""

from rcmnet_jax.data.audit.examine import Audit as Audit
from rcmnet_jax.data.audit.examine import audit_source as audit_source
from rcmnet_jax.data.audit.examine import read_audit as read_audit
from rcmnet_jax.data.audit.thorough import ThoroughAudit as ThoroughAudit
from rcmnet_jax.data.audit.thorough import audit_thoroughly as audit_thoroughly
from rcmnet_jax.data.audit.thorough import examine_thumbnails as examine_thumbnails
from rcmnet_jax.data.audit.thorough import thumbnail as thumbnail
