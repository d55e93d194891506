"""IAM actions that moto lacks: outbound web identity federation. It is disabled until the account enables it, as at AWS.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOutboundWebIdentityFederationInfo.html
"""

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse
from moto_resources import HERE


class FeatureDisabled(ServiceException):
    # moto finds the service's model by the exception's module.
    __module__ = "moto.iam.exceptions"
    code = "FeatureDisabledException"


class FeatureEnabled(ServiceException):
    __module__ = "moto.iam.exceptions"
    code = "FeatureEnabledException"


class Federation:
    """The account's issuer; None while the feature is disabled."""

    issuer = None


def enable(self):
    if Federation.issuer is not None:
        raise FeatureEnabled("Outbound web identity federation is already enabled for this account.")
    # AWS makes up the host. GovCloud's form is not documented, so this one is reserved for examples (RFC 2606).
    Federation.issuer = f"https://{HERE.ACCOUNT}.issuer.example.com"
    return ActionResult({"IssuerIdentifier": Federation.issuer})


def get_info(self):
    if Federation.issuer is None:
        raise FeatureDisabled("Outbound web identity federation is not enabled for this account.")
    return ActionResult({"IssuerIdentifier": Federation.issuer, "JwtVendingEnabled": True})


IamResponse.enable_outbound_web_identity_federation = enable
IamResponse.get_outbound_web_identity_federation_info = get_info
