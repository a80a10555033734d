-- Whoever writes HELP is told what the number is, how to stop it and how to reach a person.

ALTER TABLE notice DROP CONSTRAINT notice_occasion_check;
ALTER TABLE notice ADD CONSTRAINT notice_occasion_check CHECK (occasion IN (
    'received', 'after_hours', 'voicemail', 'escalated', 'need_info', 'still_on_it', 'delayed', 'answered', 'solved',
    'reopened', 'outage_known', 'outage_over', 'callback_booked', 'callback_missed', 'security', 'next_issue', 'recovery',
    'check_in', 'survey', 'digest', 'help'));
