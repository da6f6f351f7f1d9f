"""A drafter that always proposes the same token."""

from pam.decode.drafters.base import Drafter


class SameToken(Drafter):
    def propose(self, engine, rows, most):
        print(f"dummy drafter: {len(rows)} rows, at most {most}")
        return [[1][:most] for _ in rows]
