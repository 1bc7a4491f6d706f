"""The intermediate representation: types, networks, cases, and the protocols of backends."""
