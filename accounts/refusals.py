"""The refusals that speak of accounts, and what /docs lists for each route."""

from types import MappingProxyType

from core.refusals import (
    BlankField,
    BodyTooLarge,
    ComeAgain,
    Mistake,
    NotAForm,
    NotFound,
    NotJSON,
    Refusal,
    TooManyWaiting,
    Unauthorized,
)
from core.web.openapi import document_header, documented

HOW_TO_LOG_IN = (
    "POST your email as username and your password as a form to /api/login,"
    " then send 'Authorization: Bearer' and the access_token."
)


class NotSignedIn(Unauthorized):
    text = f"Log in first: {HOW_TO_LOG_IN}"


class DeadToken(Unauthorized):
    text = f"This token is unknown or has ended. Log in again: {HOW_TO_LOG_IN}"


class WrongLogin(Unauthorized):
    text = "Incorrect email or password."
    more = MappingProxyType({"error": "invalid_grant"})  # RFC 6749, section 5.2


class AdministratorsOnly(Refusal):
    status = 403
    text = "Only an administrator may do this."


class CurrentPasswordMissing(Refusal):
    status = 403
    text = "Send current_password too."


class WrongCurrentPassword(Refusal):
    status = 403
    text = "Current password is incorrect."


class UserNotFound(NotFound):
    text = "User not found."


class EmailTaken(Refusal):
    status = 409
    text = "Email already registered."


class TooManyWrongPasswords(ComeAgain):
    status = 429
    text = "Too many wrong passwords. Wait a minute."


class TooBusy(ComeAgain):
    status = 503
    text = "Too many passwords are waiting. Try again in a moment."


# What core/web/errors.py answers for a unique column, and says of a missing field.
TAKEN: dict[tuple[str, str], type[Refusal]] = {("user", "email"): EmailTaken}
HINTS = {("/api/login", "username"): "Send your email as username"}

ACCESS = [NotSignedIn, DeadToken]
ACCOUNT = [*ACCESS, AdministratorsOnly, UserNotFound, Mistake]
BODY = [BodyTooLarge, NotJSON, BlankField, Mistake]
HASHING = [TooManyWaiting, TooBusy]
PROOF = [CurrentPasswordMissing, WrongCurrentPassword, TooManyWrongPasswords]

SIGN_UP = documented(*BODY, EmailTaken, *HASHING)
SIGN_UP[201] = {"headers": document_header("Location", "Where the account is.")}
ONE_USER = documented(*ACCOUNT)
LIST = documented(*ACCESS, AdministratorsOnly)
CHANGE = documented(*ACCOUNT, *BODY, *PROOF, EmailTaken, *HASHING)
LOG_IN = documented(
    WrongLogin, BodyTooLarge, NotAForm, Mistake, *HASHING, TooManyWrongPasswords
)
LOG_OUT = documented(*ACCESS)
