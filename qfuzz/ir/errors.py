"""What qfuzz raises. Every class below is a `QfuzzError`, and each message is one line: where, what and which rule.

QfuzzError
├── InvalidCase        bad input: a case, network or file that breaks a rule (exit 2)
├── BackendMissing     a backend that was asked for by name cannot be had here (exit 3)
│   └── UnknownBackend there is none of that name, or not with these options: bad usage, too (exit 2)
├── Unsupported        a backend has no kernel for a valid network; carries the reason
├── Rejected           a framework refused a network that it should accept
├── Crashed            a kernel ended the process that ran it, and that process is not this one
├── ExtraMissing       an optional part of qfuzz needs a package that is not installed (exit 3)
├── WorkerFailed       a worker process could not be started or broke the protocol (exit 3)
└── CampaignFailed     a campaign could not go on: no space, no scheduler; what it had is kept (exit 3)
"""


class QfuzzError(Exception):
    """Base of all errors that qfuzz raises on purpose."""


class InvalidCase(QfuzzError, ValueError):
    """A case, network, attribute or file that breaks a rule of the intermediate representation."""


class BackendMissing(QfuzzError):
    """A backend named by the user is unknown, or its framework is not installed."""


class UnknownBackend(InvalidCase, BackendMissing):
    """No backend has this name, or it does not take these options."""


class ExtraMissing(QfuzzError):
    """An optional part of qfuzz needs a package that is not installed; the message says how to get it."""


class Unsupported(QfuzzError):
    """A backend really has no kernel for this network; the message is the reason."""


class Rejected(QfuzzError):
    """A framework refused a network; the message is the framework's own."""


class Crashed(QfuzzError):
    """A kernel ended a process other than this one; the message says how, and what that process printed last."""


class WorkerFailed(QfuzzError):
    """A worker could not be started, or stopped speaking the protocol."""


class CampaignFailed(QfuzzError):
    """A campaign could not go on. What was committed before is kept, and ``--resume`` goes on from there."""
