"""Log in and log out."""

from fastapi import APIRouter

from accounts import refusals
from accounts.permits import TOKEN_LIFETIME, add_token, find_token
from database import SessionDep
from models import TokenPublic, User
from routers.dependencies import BearerToken, CurrentUser, LoginProof

router = APIRouter(prefix="/api", tags=["log in"])


@router.post("/login", responses=refusals.LOG_IN)
def log_in(proof: LoginProof, session: SessionDep) -> TokenPublic:
    """Log in: `username` is the email. The answer says how long its token lasts."""
    # Lock the row until the commit. Its password may have changed during the check.
    user = session.get(User, proof.user_id, with_for_update=True)
    if user is None or not proof.still_holds(user):
        raise refusals.WrongLogin
    proof.strengthen(user)
    access_token = add_token(session, proof.user_id)
    session.commit()
    expires_in = int(TOKEN_LIFETIME.total_seconds())
    return TokenPublic(access_token=access_token, expires_in=expires_in)


@router.post("/logout", status_code=204, responses=refusals.LOG_OUT)
def log_out(_user: CurrentUser, token: BearerToken, session: SessionDep) -> None:
    """Log out: end this token."""
    session.delete(find_token(session, token))
    session.commit()
