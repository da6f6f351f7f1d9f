"""Errors as OpenAI's API reports them."""

from typing import Any


class ApiError(Exception):
    """A request that is refused: an HTTP status and the fields of OpenAI's `error` object."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @property
    def type(self) -> str:
        if self.status == 401:
            return "authentication_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", "unsupported_parameter", param)


def invalid(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", "invalid_value", param)


def overloaded(why: str) -> ApiError:
    return ApiError(503, f"{why}: try again later", "overloaded")
