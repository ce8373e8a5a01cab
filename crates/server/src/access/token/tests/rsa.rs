//! Of an RSA key that was made for this and thrown away: `ring` makes none. The tokens expire in 2100.

/// The public key; its exponent is 65537.
pub const MODULUS: &str = concat!(
    "vkLr9Zen3vCn2LDn0Nau53K_HDYiFnYALlOmCFww62ojkDSVLXcRxUpZnI7MPs_uU0e1wsOZmhAaH65cNsk2f21QH631JgIwOmfsmxCUrtNsdS",
    "exirPti19KKrBPgz4AW6W6yERj5Zc7a0xvFyVjiQ3yYmLePFeF5yMWid6VqtQDxj8Q5qCsRAL2KIH2IUuJecqJEkBrVMQnJn4aDy7zQcyTRZQt",
    "BeL3UK-4XJOdqVhvIOtW1WyWSJDVjNdQc3hPs4WwSdEeWX04ZPsRMLrqnOuzpyusjyewUoNjLR3Rg6II2qY5JnLs-",
    "2uxxA2Ry3mGeuCBhjRnogR5TJr8y3q7kQ",
);

/// A token.
pub const RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJhZGEiLCJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJkd2Vsb",
    "CIsImV4cCI6NDEwMjQ0NDgwMH0.QLOUSY825KVoiT01ctRPG3dnBxH-a0_TTxpLgqFgedQERj-Q_3hoHNsuc6Cooe5OEageUYPqQGibD7fkUPL",
    "xXqVxGMrbGA3jq2k_W22AYpakgnkw9OIT44bJYM8G3SFeal8hQ1jckz_tIObQV4Y7TeyVzGYKlPZPboG_KJJsmhp-",
    "q9ECeT_NciiZJUJvUrsSMxmJhwhplCtuuSQ5aykQ7yKUBJtgGOElQ1VVppiVgGQrEIUZIWZYMdKjYnD0P7-",
    "Q5eeEXCtD710qdlATaGzWWopKI5SFbtqhcHLpMtEFjJg8w6Se40AIqmaOB3YhoacKD5LmNb1dpK0sR-VGAddLOw",
);

/// The same, signed in the other way.
pub const PS256: &str = concat!(
    "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJhZGEiLCJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJkd2Vsb",
    "CIsImV4cCI6NDEwMjQ0NDgwMH0.GIfgW5YZmkvJ8k9mTk8z8j2newdLfR-3D40rjUFq-rsACVbOCMSnFYcl-",
    "j2ItnhA1ixSsMTgTbqwfywJ0VQz_8qvnNLObWOZ1DXZQD7yxn_U8cyWoiN60TmdYsuLG3Ti3JhymoXQdoB35clkkcs9NrOjE3h5wN4QlqR-Tki",
    "3kDKaL1omKIYAtViOIu_bGIQ0avFYfEk4W0wxfFzi3sV_hOYJE0mIc90r1Cqm5mQ7hMgHKRb0wJpVb2iy7CkyzcuJ3VgmdTDXgeGvr3CskbyA6",
    "D8OHj7WGVaTH-xTR0-fweUS4ZbrQO7wzq_Z0qQYmAlZaWDgMZhv7pk-NzIFab9v2Q",
);
