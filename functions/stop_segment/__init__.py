"""Stops segment tasks through the RTC API, as the event queue's messages say.

Read it from the top. A module imports only from the lines below its own, and from `segments`; `make lint` checks this.

    handler     an invocation, from its messages to their ends
    wiring      made once in an environment
    logs        log lines and metrics
    queues      what is sent for messages that failed
    workflows   what workflows are told of the ends of messages
    stopper     serves the events of a batch
    failures    what becomes of a message that failed
    arrivals    the messages
    settings
"""
