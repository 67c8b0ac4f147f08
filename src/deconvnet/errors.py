"""The one error that users are meant to read: it says what is wrong, where, and what to do."""


class UserError(Exception):
    """Something in the settings, the data or the machine that the user can put right.

    The pipeline prints its message as one paragraph, without a traceback.
    """
