"""Stops segment tasks through the RTC API, as the event queue's messages say.

Read it from the top. A module imports only from the lines below its own; `make lint` sees to that.

    handler     an invocation, from its messages to their ends
    service     what an environment makes once
    report      log lines and metrics
    stopper     what is done with the events of a batch
    arrivals, calls, failures, records, rtc     what comes in, and what is asked of SQS, DynamoDB and the RTC API
    circuit, credentials, turns                 what an API call needs
    events      what a message says
    envelopes, rules                            what is around an event, and what it may stop
    errors, settings
"""
